// What the page says, in English and Portuguese, and how it writes numbers and times.

const english = {
  skip: "Skip to the numbers",
  elsewhere: "Elsewhere",
  connecting: "Connecting",
  live: "Live",
  lost: "Connection lost, trying again",
  behind: "Catching up",
  stale: "Stale",
  as_of: "As of",
  four: "The four metrics",
  used: "Used space",
  accesses: "Lake requests",
  response: "Response time",
  records: "Rows processed",
  as_table: "As a table",
  catching_up: "Catching up",
  catching_up_text: "Numbers are shown once they are complete: {0} messages are still to be counted.",
  stale_text: "NATS was last reached {0}, at {1}: what happened since is not counted. The numbers are shown again once it is reached.",
  percentiles: "How long queries take",
  percentiles_note: "{0} queries in the last {1}",
  percentiles_none: "No query in the last {0}",
  half: "Half of them within (p50)",
  most: "95 % within (p95)",
  nearly_all: "99 % within (p99)",
  queued: "Time spent in the queue",
  failed: "Failed",
  cached: "Answered from a cache",
  buckets: "Largest buckets",
  warehouses: "Busiest warehouses",
  top_of: "{0} of {1}; rates of the last minute",
  bucket: "Bucket",
  used_column: "Used",
  share: "Share",
  requests_rate: "Requests/s",
  transferred_rate: "Transferred",
  failed_column: "Failed",
  warehouse: "Warehouse",
  queries_rate: "Queries/s",
  rows_rate: "Rows/s",
  p95: "p95",
  nothing: "Nothing yet",
  health: "Is the aggregator well?",
  since_start: "Counts since this process started",
  part_ok: "ok",
  part_bad: "not yet",
  stream: "Stream",
  newest: "Newest event",
  lag: "Lag",
  position: "Position",
  counted: "Counted",
  duplicates: "Duplicates",
  too_old: "Too old to judge",
  dead_letters: "Dead letters",
  snapshot: "Snapshot",
  ago: "{0} ago",
  just_now: "just now",
  messages: "{0} messages",
  no_points: "The plot begins with the first sample, within seconds",
  used_note: "Growing by {0}/s",
  used_shrinks: "Shrinking by {0}/s",
  used_estimate: "An estimate until the next inventory: too many objects to track",
  rate_note: "Plotted: per second, now {0}",
  response_note: "Mean of the 60 s up to the newest query",
  summary: "{0}, last hour: now {1}, lowest {2}, highest {3}",
  summary_rate: "{0} per second, last hour: now {1}, lowest {2}, highest {3}",
  time: "Time",
  value: "Value",
};

const portuguese = {
  skip: "Ir para os números",
  elsewhere: "Outros lugares",
  connecting: "Conectando",
  live: "Ao vivo",
  lost: "Conexão perdida, tentando de novo",
  behind: "Recuperando",
  stale: "Desatualizado",
  as_of: "Às",
  four: "As quatro métricas",
  used: "Espaço utilizado",
  accesses: "Acessos ao lake",
  response: "Tempo de resposta",
  records: "Registros processados",
  as_table: "Em tabela",
  catching_up: "Recuperando o atraso",
  catching_up_text: "Os números aparecem quando estiverem completos: faltam contar {0} mensagens.",
  stale_text: "O NATS respondeu pela última vez {0}, às {1}: o que aconteceu depois não foi contado. Os números voltam quando ele for alcançado.",
  percentiles: "Quanto demoram as consultas",
  percentiles_note: "{0} consultas nos últimos {1}",
  percentiles_none: "Nenhuma consulta nos últimos {0}",
  half: "Metade em até (p50)",
  most: "95 % em até (p95)",
  nearly_all: "99 % em até (p99)",
  queued: "Tempo gasto na fila",
  failed: "Falharam",
  cached: "Respondidas pelo cache",
  buckets: "Maiores buckets",
  warehouses: "Warehouses mais ativos",
  top_of: "{0} de {1}; taxas do último minuto",
  bucket: "Bucket",
  used_column: "Usado",
  share: "Parte",
  requests_rate: "Acessos/s",
  transferred_rate: "Transferido",
  failed_column: "Falhas",
  warehouse: "Warehouse",
  queries_rate: "Consultas/s",
  rows_rate: "Registros/s",
  p95: "p95",
  nothing: "Nada ainda",
  health: "O agregador está bem?",
  since_start: "Contagens desde o início deste processo",
  part_ok: "ok",
  part_bad: "ainda não",
  stream: "Stream",
  newest: "Evento mais novo",
  lag: "Atraso",
  position: "Posição",
  counted: "Contados",
  duplicates: "Duplicados",
  too_old: "Antigos demais para julgar",
  dead_letters: "Cartas mortas",
  snapshot: "Snapshot",
  ago: "há {0}",
  just_now: "agora mesmo",
  messages: "{0} mensagens",
  no_points: "O gráfico começa com a primeira amostra, em segundos",
  used_note: "Cresce {0}/s",
  used_shrinks: "Diminui {0}/s",
  used_estimate: "Estimativa até o próximo inventário: objetos demais para acompanhar",
  rate_note: "No gráfico: por segundo, agora {0}",
  response_note: "Média dos 60 s até a consulta mais nova",
  summary: "{0}, última hora: agora {1}, mínimo {2}, máximo {3}",
  summary_rate: "{0} por segundo, última hora: agora {1}, mínimo {2}, máximo {3}",
  time: "Hora",
  value: "Valor",
};

const isPortuguese = navigator.language.toLowerCase().startsWith("pt");
export const locale = navigator.language;
export const language = isPortuguese ? "pt-BR" : "en";
const words = isPortuguese ? portuguese : english;

/** A text by its name, with values in the places {0}, {1}. */
export const say = (name, ...values) =>
  values.reduce((text, value, place) => text.replace(`{${place}}`, value), words[name] ?? name);

const formats = new Map();
const format = (options) => {
  const key = JSON.stringify(options);
  if (!formats.has(key)) formats.set(key, new Intl.NumberFormat(locale, options));
  return formats.get(key);
};

const none = "—";
const known = (write) => (value) => (value === null || value === undefined ? none : write(value));

/** Whole numbers in full. */
export const whole = known((value) => format({ maximumFractionDigits: 0 }).format(value));
/** With at most so many decimals. */
export const decimal = (digits) => known((value) => format({ maximumFractionDigits: digits }).format(value));
/** With exactly so many decimals, for columns. */
export const fixed = (digits) =>
  known((value) => format({ minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value));
/** Short: 1.2M, 1,2 mi. */
export const compact = known((value) =>
  format({ notation: "compact", maximumSignificantDigits: 3 }).format(value));
/** Shares of one. */
export const percent = known((value) =>
  format({ style: "percent", maximumSignificantDigits: value > 0 && value < 0.01 ? 1 : 2 }).format(value));

/** Bytes in powers of ten, as operators of object stores count. */
export const bytes = known((value) => {
  const units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
  let size = Math.abs(value);
  let unit = 0;
  while (size >= 999.5 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  const text = format({ maximumSignificantDigits: 3 }).format(Math.sign(value) * size);
  return `${text}\u00a0${units[unit]}`;
});

/** Spans of time given in milliseconds: 12 ms, 3.4 s, 5 min, 2 h. */
export const span = known((ms) => {
  const steps = [["ms", 1], ["s", 1e3], ["min", 6e4], ["h", 36e5], ["d", 864e5]];
  let chosen = steps[0];
  for (const step of steps) if (ms >= step[1] * (step[0] === "ms" || step[0] === "s" ? 1 : 1.5)) chosen = step;
  return `${format({ maximumSignificantDigits: 3 }).format(ms / chosen[1])}\u00a0${chosen[0]}`;
});

/** A mark of an axis in milliseconds, in a unit that fits the whole axis. */
export const axisSpan = (ms, _step, high) => {
  const [unit, size] = high < 2e3 ? ["ms", 1] : high < 6e5 ? ["s", 1e3] : high < 6e7 ? ["min", 6e4] : ["h", 36e5];
  return `${format({ maximumFractionDigits: 1 }).format(ms / size)}\u00a0${unit}`;
};

const clockFormat = new Intl.DateTimeFormat(locale, { timeStyle: "medium" });
const minuteFormat = new Intl.DateTimeFormat(locale, { hour: "numeric", minute: "2-digit" });
/** A time of day, to the second. */
export const clock = (ms) => clockFormat.format(ms);
/** A time of day, to the minute. */
export const minute = (ms) => minuteFormat.format(ms);
