// The texts of the page in English and Portuguese, and the formats of numbers and times. \u00ad marks
// where a narrow column may break a word.

const english = {
  skip: "Skip to the numbers",
  elsewhere: "Elsewhere",
  connecting: "Connecting",
  live: "Live",
  lost: "Connection lost, trying again",
  behind: "Catching up",
  stale: "Stale",
  unwell: "Not well",
  standby: "Stands by",
  wrong: "What is wrong",
  pipeline: "Parts",
  since: "{0} (since {1})",
  waits: "{0} messages wait to be archived, and nothing is lost.",
  nothing_lost: "Nothing that was acknowledged is lost.",
  incident_aggregator_silent: "This page can't reach the aggregator",
  todo_aggregator_silent: "Look at its log, and start it if it does not run. It resumes where it was; the archiver does not need it.",
  incident_dead_letters: "{0} events could not be archived as events",
  condition_postgres: "PostgreSQL login",
  state_well: "well",
  state_failing: "not well",
  state_silent: "no reports",
  state_stopped: "stopped",
  state_standby: "stands by",
  state_unknown: "not known",
  ledger_well: "Last check of the archive's ledger: all is well, at {0}; lakegauge audit proves it.",
  ledger_gaps: "Last check of the archive's ledger, at {0}: it has a gap.",
  ledger_lost: "{0} messages are a declared loss of the broker.",
  over: "Over: {0}, from {1} to {2}.",
  as_of: "As of",
  four: "The four metrics",
  used: "Used space",
  accesses: "Lake requests",
  response: "Response time",
  records: "Rows processed",
  as_table: "As a table",
  catching_up: "Catching up",
  catching_up_text: "Numbers are shown once they are complete: {0} messages are still to be counted.",
  stale_text: "NATS was last reached {0}, at {1}: later events are not counted. The numbers are shown again once NATS is reached.",
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
  requests_rate: "Re\u00adquests/s",
  transferred_rate: "Trans\u00adferred",
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
  unwell: "Há um problema",
  standby: "De prontidão",
  wrong: "O que há de errado",
  pipeline: "Partes",
  since: "{0} (desde {1})",
  waits: "{0} mensagens esperam para ser arquivadas, e nada se perde.",
  nothing_lost: "Nada do que foi confirmado se perde.",
  incident_aggregator_silent: "Esta página não alcança o agregador",
  todo_aggregator_silent: "Veja o log dele e inicie-o se não estiver em execução. Ele continua de onde estava; o arquivador não precisa dele.",
  incident_nats_down: "O NATS não responde",
  todo_nats_down: "Inicie o nats-server ou conserte o caminho até ele; todos os serviços se reconectam sozinhos. Quem publica guarda o que não foi confirmado e envia depois.",
  incident_nats_login: "O NATS recusa o login",
  todo_nats_login: "Coloque o login certo onde o detalhe diz; ele é lido de novo a cada tentativa.",
  incident_postgres_down: "O arquivador não alcança o PostgreSQL",
  todo_postgres_down: "Inicie o PostgreSQL ou veja o log dele; o arquivador se reconecta sozinho.",
  incident_postgres_login: "O PostgreSQL recusa o login do arquivador",
  todo_postgres_login: "Coloque o login certo onde o detalhe diz; ele é lido de novo a cada tentativa.",
  incident_archiver_silent: "O arquivador não dá notícias",
  todo_archiver_silent: "Veja o log dele e inicie-o se não estiver em execução; ele continua do ponto em que parou.",
  incident_archiver_stopped: "O arquivador foi parado",
  todo_archiver_stopped: "Inicie-o de novo; ele continua do ponto em que parou.",
  incident_archiver_stalled: "O arquivador está parado",
  todo_archiver_stalled: "O detalhe, /readyz?verbose na porta de administração dele e o log dizem o que ele espera.",
  incident_archiver_failing: "O arquivador não faz o seu trabalho",
  todo_archiver_failing: "O detalhe, /readyz?verbose na porta de administração dele e o log dizem por quê.",
  incident_standby_only: "Nenhum arquivador grava: um espera pelo outro",
  todo_standby_only: "O detalhe diz quem segura a trava: está travado ou isolado. Encerre-o, e um dos que esperam assume.",
  incident_ledger_gap: "O livro-razão do arquivo tem uma lacuna",
  todo_ledger_gap: "Execute lakegauge audit; a seção LakegaugeArchiveAlarm do runbook diz mais.",
  incident_aggregator_standby: "Este agregador está de prontidão para outro",
  todo_aggregator_standby: "O detalhe diz qual deles conta: os números estão na página daquele.",
  incident_aggregator_waits: "Este agregador espera por outro que não dá notícias",
  todo_aggregator_waits: "Ele assume sozinho quando o prazo do outro terminar.",
  incident_aggregator_failing: "O agregador não faz o seu trabalho",
  todo_aggregator_failing: "O detalhe, /readyz?verbose na porta de administração dele e o log dizem por quê.",
  incident_source_silent: "{part} não dá notícias",
  todo_source_silent: "Veja o log e inicie-o se não estiver em execução. O que lhe foi confirmado é contado.",
  incident_source_waits: "{part} não consegue publicar",
  todo_source_waits: "O detalhe diz o que ele espera; ele continua sozinho.",
  incident_dead_letters: "{0} eventos não puderam ser arquivados como eventos",
  todo_dead_letters: "Os bytes foram guardados: lakegauge dead-letters list os mostra, retry ou drop os encerra.",
  state_well: "bem",
  state_failing: "com problema",
  state_silent: "sem notícias",
  state_stopped: "parado",
  state_standby: "de prontidão",
  state_unknown: "desconhecido",
  ledger_well: "Última verificação do livro-razão do arquivo: tudo certo, às {0}; lakegauge audit comprova.",
  ledger_gaps: "Última verificação do livro-razão do arquivo, às {0}: há uma lacuna.",
  ledger_lost: "{0} mensagens são uma perda declarada do broker.",
  over: "Encerrado: {0}, de {1} a {2}.",
  condition_started: "iniciado",
  condition_nats: "NATS",
  condition_postgres: "login no PostgreSQL",
  condition_owner: "dono da partição",
  "condition_caught up": "em dia",
  condition_numbers: "números atuais",
  condition_backlog: "fila",
  condition_publisher: "publicação",
  condition_snapshot: "snapshot",
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
  share: "Participação",
  requests_rate: "Aces\u00adsos/s",
  transferred_rate: "Trans\u00adferido",
  failed_column: "Falhas",
  warehouse: "Warehouse",
  queries_rate: "Con\u00adsultas/s",
  rows_rate: "Regis\u00adtros/s",
  p95: "p95",
  nothing: "Nada ainda",
  health: "O agregador está bem?",
  since_start: "Contagens desde o início deste processo",
  part_ok: "ok",
  part_bad: "ainda não",
  stream: "Stream",
  newest: "Evento mais recente",
  lag: "Atraso",
  position: "Posição",
  counted: "Contados",
  duplicates: "Duplicados",
  too_old: "Antigos demais para julgar",
  dead_letters: "Dead letters",
  snapshot: "Snapshot",
  ago: "há {0}",
  just_now: "agora mesmo",
  messages: "{0} mensagens",
  no_points: "O gráfico começa com a primeira amostra, em segundos",
  used_note: "Cresce {0}/s",
  used_shrinks: "Diminui {0}/s",
  used_estimate: "Estimativa até o próximo inventário: objetos demais para acompanhar",
  rate_note: "No gráfico: por segundo, agora {0}",
  response_note: "Média dos 60 s até a consulta mais recente",
  summary: "{0}, última hora: agora {1}, mínimo {2}, máximo {3}",
  summary_rate: "{0} por segundo, última hora: agora {1}, mínimo {2}, máximo {3}",
  time: "Hora",
  value: "Valor",
};

const isPortuguese = navigator.language.toLowerCase().startsWith("pt");
export const locale = navigator.language;
export const language = isPortuguese ? "pt-BR" : "en";
const words = isPortuguese ? portuguese : english;

/** A text by its name, if the language has it. */
export const known = (name) => words[name];

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
const orNone = (write) => (value) => (value === null || value === undefined ? none : write(value));

/** Whole numbers in full. */
export const whole = orNone((value) => format({ maximumFractionDigits: 0 }).format(value));
/** Numbers with at most `digits` decimals. */
export const decimal = (digits) => orNone((value) => format({ maximumFractionDigits: digits }).format(value));
/** Numbers with exactly `digits` decimals, for columns. */
export const fixed = (digits) =>
  orNone((value) => format({ minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value));
/** Short numbers: 1.2M, 1,2 mi. */
export const compact = orNone((value) =>
  format({ notation: "compact", maximumSignificantDigits: 3 }).format(value));
/** Shares as percentages; 1 is 100 %. */
export const percent = orNone((value) =>
  format({ style: "percent", maximumSignificantDigits: value > 0 && value < 0.01 ? 1 : 2 }).format(value));

/** Bytes in powers of ten, as operators of object stores count. */
export const bytes = orNone((value) => {
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
export const span = orNone((ms) => {
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
