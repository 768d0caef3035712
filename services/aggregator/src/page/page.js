// Shows what the aggregator sends: first the last hour, then the numbers once a second.

import { Plot } from "./plot.js";
import { showBanner, showPipeline } from "./pipeline.js";
import { axisSpan, bytes, clock, compact, decimal, fixed, known, language, percent, say, span, whole } from "./words.js";

const element = (id) => document.getElementById(id);
const RECONNECT_MS = 3_000;
// After this time without an update, a connection counts as lost. Updates come each second, and people
// should see a lost connection within five.
const SILENCE_MS = 4_000;
// Points further apart than this many grains are not connected: nothing was counted in between.
const GAP_GRAINS = 3;
const TABLE_ROWS = 13;

const gb = fixed(3);
const ms = fixed(1);

/** Per second, from a count over time. */
function rates(points, grain) {
  const found = [];
  for (let next = 1; next < points.length; next += 1) {
    const [then, before] = points[next - 1];
    const [at, value] = points[next];
    const grown = Math.max(0, value - before);
    if (at - then > GAP_GRAINS * grain) {
      found.push([then + grain, 0], [at - grain, 0], [at, (grown / grain) * 1000]);
    } else {
      found.push([at, (grown / (at - then)) * 1000]);
    }
  }
  return found;
}

const column = (rows, place) => rows.map((row) => [row[0], row[place]]);

const metrics = [
  {
    id: "used",
    name: "data_lake_espaco_utilizado_gb",
    write: gb,
    plotted: (value) => `${gb(value)} GB`,
    axis: (value, step) => decimal(step < 0.01 ? 4 : step < 1 ? 2 : 1)(value),
    fromZero: false,
    points: (history) => column(history.lake, 1).map(([at, value]) => [at, value / 1e9]),
    live: (now) => now.four.data_lake_espaco_utilizado_gb,
    note: (now) => {
      if (now.used_is_estimate) return say("used_estimate");
      const rate = now.rates.used_bytes;
      if (rate === null) return "";
      return say(rate < 0 ? "used_shrinks" : "used_note", bytes(Math.abs(rate)));
    },
    summary: "summary",
  },
  {
    id: "accesses",
    name: "data_lake_numero_acessos",
    write: whole,
    plotted: (value) => `${decimal(1)(value)}/s`,
    axis: (value) => compact(value),
    fromZero: true,
    points: (history) => rates(column(history.lake, 2), history.grain_s * 1000),
    live: (now) => now.rates.accesses,
    note: (now) => (now.rates.accesses === null ? "" : say("rate_note", decimal(1)(now.rates.accesses))),
    summary: "summary_rate",
  },
  {
    id: "response",
    name: "data_warehouse_tempo_resposta_ms",
    write: ms,
    plotted: (value) => span(value),
    axis: axisSpan,
    fromZero: true,
    points: (history) => column(history.warehouse, 1),
    live: (now) => now.four.data_warehouse_tempo_resposta_ms,
    note: () => say("response_note"),
    summary: "summary",
  },
  {
    id: "records",
    name: "data_warehouse_registros_processados",
    write: whole,
    plotted: (value) => `${compact(value)}/s`,
    axis: (value) => compact(value),
    fromZero: true,
    points: (history) => rates(column(history.warehouse, 2), history.grain_s * 1000),
    live: (now) => now.rates.records,
    note: (now) => (now.rates.records === null ? "" : say("rate_note", compact(now.rates.records))),
    summary: "summary_rate",
  },
];

for (const metric of metrics) {
  metric.plot = new Plot(element(`${metric.id}-plot`), { ...metric, write: metric.plotted });
  element(`${metric.id}-table`).parentElement.addEventListener("toggle", () => showTable(metric));
}

let history;
let now;

/** The points of the last hour, with that of this moment. */
function pointsOf(metric) {
  const from = now.at_ms - history.span_s * 1000;
  const points = (metric.past ??= metric.points(history)).filter(([at]) => at >= from && at <= now.at_ms);
  const live = metric.live(now);
  if (live === null || live === undefined) return points;
  const grain = history.grain_s * 1000;
  const last = points.at(-1);
  // After a while without a sample, the rate was zero.
  if (last && metric.summary === "summary_rate" && now.at_ms - last[0] > GAP_GRAINS * grain) points.push([last[0] + grain, 0]);
  points.push([now.at_ms, live]);
  return points;
}

function showPlots() {
  if (!history || !now?.ready) return;
  for (const metric of metrics) {
    const points = pointsOf(metric);
    const values = points.map(([, value]) => value);
    const [low, high] = [Math.min(...values), Math.max(...values)].map(metric.plotted);
    const title = element(`${metric.id}-title`).textContent;
    const label = points.length > 1
      ? say(metric.summary, title, metric.plotted(values.at(-1)), low, high)
      : say("no_points");
    metric.plot.show(points, now.at_ms, history.span_s * 1000, label);
  }
}

const cell = (name, text, kind) => {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
};

/** Some points of a plot in text, the newest first; filled when it is opened and with each sample. */
function showTable(metric) {
  const host = element(`${metric.id}-table`);
  if (!host.parentElement.open || !history || !now?.ready) return;
  const points = pointsOf(metric);
  const every = Math.max(1, Math.ceil(points.length / TABLE_ROWS));
  const rows = points.filter((_, place) => (points.length - 1 - place) % every === 0).reverse();
  const table = document.createElement("table");
  table.append(head([say("time"), say("value")]), body(rows.map(([at, value]) => [clock(at), metric.plotted(value)])));
  host.replaceChildren(table);
}

function head(titles) {
  const row = document.createElement("tr");
  for (const title of titles) {
    const made = cell("th", title);
    made.scope = "col";
    row.append(made);
  }
  const made = document.createElement("thead");
  made.append(row);
  return made;
}

/** Rows of texts, elements, or [text, class], under these titles, which narrow screens show beside each. */
function body(rows, titles = []) {
  const made = document.createElement("tbody");
  for (const row of rows) {
    const line = document.createElement("tr");
    row.forEach((value, place) => {
      let made;
      if (place === 0) {
        made = document.createElement("th");
        made.scope = "row";
        const name = cell("span", value, "name");
        name.title = value;
        made.append(name);
      } else if (value instanceof Element) {
        made = document.createElement("td");
        made.append(value);
      } else {
        made = Array.isArray(value) ? cell("td", value[0], value[1]) : cell("td", value);
      }
      if (titles[place]) made.dataset.label = titles[place];
      line.append(made);
    });
    made.append(line);
  }
  return made;
}

function showTableOf(id, titles, rows) {
  const host = element(id);
  if (rows.length === 0) {
    host.replaceChildren(body([[say("nothing")]]));
  } else {
    host.replaceChildren(head(titles), body(rows, titles));
  }
}

/** How long ago, from milliseconds. */
const ago = (ms) => (ms < 1000 ? say("just_now") : say("ago", span(Math.round(ms / 1000) * 1000)));

/** A bar and its text: what a part is of the whole. */
function shareOf(part) {
  const made = document.createElement("span");
  const bar = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  bar.setAttribute("class", "share");
  bar.setAttribute("aria-hidden", "true");
  for (const [kind, width] of [["track", 1], ["part", part]]) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    made.setAttribute("class", kind);
    made.setAttribute("height", "5");
    made.setAttribute("rx", "2.5");
    made.setAttribute("width", `${Math.max(0, Math.min(1, width)) * 100}%`);
    bar.append(made);
  }
  made.className = "shared";
  made.append(bar, cell("span", percent(part)));
  return made;
}

const isMany = (share) => share > 0.05;
const failed = (share) => [percent(share), isMany(share) ? "alert" : ""];

function showNumbers() {
  for (const metric of metrics) {
    const value = now.four?.[metric.name];
    const shown = element(`${metric.id}-value`);
    shown.textContent = value === undefined ? "—" : metric.write(value);
    shown.value = value ?? "";
    element(`${metric.id}-note`).textContent = now.ready ? metric.note(now) : "\u00a0";
  }
  if (!now.ready) return;
  showPercentiles();
  const { buckets, warehouses } = now;
  const used = now.four.data_lake_espaco_utilizado_gb * 1e9;
  element("buckets-note").textContent = say("top_of", whole(buckets.top.length), whole(buckets.total));
  showTableOf(
    "buckets",
    ["bucket", "used_column", "share", "requests_rate", "transferred_rate", "failed_column"].map((name) => say(name)),
    buckets.top.map((bucket) => [
      bucket.name,
      bytes(bucket.used_bytes),
      used > 0 ? shareOf(bucket.used_bytes / used) : "—",
      fixed(1)(bucket.accesses_per_s),
      bucket.transferred_bytes_per_s === null ? "—" : `${bytes(bucket.transferred_bytes_per_s)}/s`,
      failed(bucket.failed_share),
    ]),
  );
  element("warehouses-note").textContent = say("top_of", whole(warehouses.top.length), whole(warehouses.total));
  showTableOf(
    "warehouses",
    ["warehouse", "queries_rate", "p95", "rows_rate", "failed_column"].map((name) => say(name)),
    warehouses.top.map((warehouse) => [
      warehouse.name,
      fixed(2)(warehouse.queries_per_s),
      span(warehouse.p95_ms),
      compact(warehouse.records_per_s),
      failed(warehouse.failed_share),
    ]),
  );
}

function showPercentiles() {
  const { responses } = now;
  const minutes = Math.round(responses.span_s / 60);
  const time = span(minutes > 0 ? minutes * 60_000 : responses.span_s * 1000);
  element("percentiles-note").textContent =
    responses.queries > 0 ? say("percentiles_note", whole(responses.queries), time) : say("percentiles_none", time);
  const figures = [
    ["half", span(responses.p50_ms), "main"],
    ["most", span(responses.p95_ms), "main"],
    ["nearly_all", span(responses.p99_ms), "main"],
    ["queued", percent(responses.queued_share)],
    ["failed", percent(responses.failed_share)],
    ["cached", percent(responses.cache_hit_share)],
  ];
  element("percentiles").replaceChildren(
    ...figures.map(([name, value, kind]) => {
      const made = cell("div", "", kind);
      made.append(cell("dt", say(name)), cell("dd", value));
      return made;
    }),
  );
}

const partLine = (part) => {
  const made = cell("li", "", part.ok ? "" : "bad");
  const mark = cell("span", part.ok ? "✓ " : "✗ ", "mark");
  mark.setAttribute("aria-hidden", "true");
  made.append(mark, known(`condition_${part.name}`) ?? part.name);
  made.append(cell("span", ` (${say(part.ok ? "part_ok" : "part_bad")})`, "hidden"));
  // Details are in English. In other languages they are shown only if something is wrong; otherwise only
  // the name of the stream, with which they begin.
  if (language === "en" || !part.ok) {
    const detail = cell("span", ` ${part.detail}`, "detail");
    detail.lang = "en";
    made.append(detail);
  } else {
    made.append(cell("span", ` ${/^[A-Z]+_[0-9]+(?=[: ])/.exec(part.detail)?.[0] ?? ""}`, "detail"));
  }
  return made;
};

function showHealth() {
  const { parts, streams } = now.health;
  element("parts").replaceChildren(...parts.map(partLine));
  const newest = [now.newest_ms?.lake, now.newest_ms?.warehouse];
  showTableOf(
    "streams",
    ["stream", "newest", "lag", "position", "counted", "duplicates", "too_old", "dead_letters", "snapshot"].map((name) => say(name)),
    streams.map((stream, place) => [
      stream.name,
      newest[place] ? ago(now.at_ms - newest[place]) : "—",
      say("messages", whole(stream.lag_messages)),
      whole(stream.position),
      whole(stream.counted),
      whole(stream.duplicates),
      whole(stream.too_old),
      [whole(stream.dead_letters), stream.dead_letters > 0 ? "alert" : ""],
      stream.snapshot_age_s === null ? "—" : ago(stream.snapshot_age_s * 1000),
    ]),
  );
}

/** Whether another aggregator has the numbers, which is no fault and no delay. */
const standsBy = () => now.incidents.some(({ kind }) => kind === "aggregator_standby" || kind === "aggregator_waits");

function showNotice() {
  element("notice").hidden = now.ready || standsBy();
  if (now.ready) return;
  const since = now.stale_since_ms;
  const lag = now.health.streams.reduce((sum, stream) => sum + stream.lag_messages, 0);
  element("notice-title").textContent = say(since === null ? "catching_up" : "stale");
  element("notice-text").textContent = since === null
    ? say("catching_up_text", whole(lag))
    : say("stale_text", ago(now.at_ms - since), clock(since));
  const waiting = now.health.parts.filter((part) => !part.ok);
  element("notice-parts").replaceChildren(...waiting.map(partLine));
}

function showLinks() {
  for (const [name, target] of Object.entries(now.links)) {
    const link = element(`link-${name}`);
    link.hidden = target === null;
    if (target !== null) link.href = target.startsWith(":") ? `${location.protocol}//${location.hostname}${target}/` : target;
  }
}

/** Says how the connection is; read aloud only when that changes. */
function state(name, word) {
  if (document.body.dataset.state === name) return;
  document.body.dataset.state = name;
  element("status-text").textContent = say(word);
}

function show() {
  const isWell = now.incidents.every(({ severity }) => severity !== "incident");
  if (now.ready) state(isWell ? "live" : "unwell", isWell ? "live" : "unwell");
  else if (standsBy()) state("behind", "standby");
  else if (now.stale_since_ms === null) state("behind", "behind");
  else state("stale", "stale");
  element("clock").textContent = clock(now.at_ms);
  element("clock").dateTime = new Date(now.at_ms).toISOString();
  element("version").textContent = now.version;
  showLinks();
  showBanner(now.incidents);
  showPipeline(now);
  showNotice();
  showNumbers();
  showHealth();
  showPlots();
}

let heardAt = Date.now();
let source;
let silence;
let again;

function listen() {
  clearTimeout(again);
  again = undefined;
  source = new EventSource("events");
  expectMore();
  source.addEventListener("history", (event) => {
    history = JSON.parse(event.data);
    for (const metric of metrics) metric.past = undefined;
    for (const metric of metrics) showTable(metric);
  });
  source.addEventListener("now", (event) => {
    expectMore();
    heardAt = Date.now();
    now = JSON.parse(event.data);
    show();
  });
  source.addEventListener("error", lost);
}

function expectMore() {
  clearTimeout(silence);
  silence = setTimeout(lost, SILENCE_MS);
}

function lost() {
  state("lost", "lost");
  // The aggregator, which reports all other incidents, can't report this one.
  showBanner([{ kind: "aggregator_silent", severity: "incident", part: "aggregator", since_ms: heardAt, waiting_messages: null, detail: "" }]);
  hangUp();
  // The delays differ, so that not all pages reconnect at the same moment.
  again ??= setTimeout(listen, RECONNECT_MS * (0.5 + Math.random()));
}

function hangUp() {
  clearTimeout(silence);
  source?.close();
}

// A page that is not visible uses no connection.
document.addEventListener("visibilitychange", () => {
  hangUp();
  clearTimeout(again);
  again = undefined;
  if (!document.hidden) listen();
});

document.documentElement.lang = language;
for (const place of document.querySelectorAll("[data-t]")) place.textContent = say(place.dataset.t);
for (const place of document.querySelectorAll("[data-t-label]")) place.setAttribute("aria-label", say(place.dataset.tLabel));
listen();
