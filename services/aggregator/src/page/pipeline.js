// The top of the page: what is wrong and what to do, every part, and the archive's ledger.

import { clock, known, say, whole } from "./words.js";

const element = (id) => document.getElementById(id);

const made = (name, text, kind) => {
  const found = document.createElement(name);
  found.textContent = text;
  if (kind) found.className = kind;
  return found;
};

/** Words of the service itself, which are English whatever the page is. */
const inEnglish = (text, kind) => {
  const found = made("p", text, kind);
  found.lang = "en";
  return found;
};

/** What is wrong, and since when. */
function title({ kind, part, since_ms: since, title: english, detail }) {
  const text = known(`incident_${kind}`) ?? english;
  const count = kind === "dead_letters" ? whole(Number(detail)) : "";
  const what = text.replace("{part}", part).replace("{0}", count);
  return since === null || since === undefined ? what : say("since", what, clock(since));
}

/** How many messages wait, and that none is lost. */
function waits({ severity, waiting_messages: count }) {
  if (severity !== "incident") return "";
  return count === null || count === undefined ? say("nothing_lost") : say("waits", whole(count));
}

let shown = "";

/** The banner. Read aloud only when something begins or ends: numbers change without that. */
export function showBanner(incidents) {
  const host = element("banner");
  const key = JSON.stringify(incidents.map(({ kind, part, since_ms }) => [kind, part, since_ms]));
  if (key !== shown) {
    shown = key;
    host.hidden = incidents.length === 0;
    host.replaceChildren(...incidents.map((incident) => {
      const article = made("article", "", incident.severity === "incident" ? "" : "note");
      article.dataset.kind = incident.kind;
      const waiting = made("p", "", "waiting");
      waiting.setAttribute("aria-live", "off");
      const detail = inEnglish("", "detail");
      detail.setAttribute("aria-live", "off");
      article.append(made("h2", ""), waiting, made("p", known(`todo_${incident.kind}`) ?? incident.todo), detail);
      return article;
    }));
  }
  incidents.forEach((incident, place) => {
    const [heading, waiting, , detail] = host.children[place].children;
    heading.textContent = title(incident);
    waiting.textContent = waits(incident);
    waiting.hidden = waiting.textContent === "";
    detail.textContent = incident.kind === "dead_letters" ? "" : incident.detail;
    detail.hidden = detail.textContent === "";
  });
}

const MARKS = { well: ["✓", ""], failing: ["✗", "bad"], silent: ["✗", "bad"], stopped: ["✗", "bad"], standby: ["◌", "waits"], unknown: ["?", "waits"] };

function partLine(part, isAlone) {
  const [sign, kind] = MARKS[part.state] ?? MARKS.unknown;
  const line = made("li", "", kind);
  const mark = made("span", `${sign} `, "mark");
  mark.setAttribute("aria-hidden", "true");
  line.append(mark, isAlone ? part.name : `${part.name} ${part.instance}`);
  line.title = [part.instance, part.version, part.detail].filter((text) => text).join(" · ");
  const state = say(`state_${part.state}`);
  if (part.state === "well") line.append(made("span", ` (${state})`, "hidden"));
  else if (part.since_ms === null) line.append(made("span", ` ${state}`, "detail"));
  else line.append(made("span", ` ${say("since", state, clock(part.since_ms))}`, "detail"));
  return line;
}

/** Every part, the last check of the ledger, and the incident that is over. */
export function showPipeline({ parts, ledger, last_incident: over }) {
  element("pipeline-parts").replaceChildren(
    ...parts.map((part) => partLine(part, parts.filter(({ name }) => name === part.name).length === 1)),
  );
  const said = [];
  if (over) {
    const what = (known(`incident_${over.kind}`) ?? over.title).replace("{part}", over.part);
    said.push(say("over", what, clock(over.since_ms), clock(over.until_ms)));
  }
  if (ledger) {
    said.push(say(ledger.well ? "ledger_well" : "ledger_gaps", clock(ledger.checked_ms)));
    if (ledger.lost_messages > 0) said.push(say("ledger_lost", whole(ledger.lost_messages)));
  }
  element("ledger").textContent = said.join(" ");
}
