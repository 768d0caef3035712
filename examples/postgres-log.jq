# PostgreSQL's JSON log as warehouse events, one a line. Run with -cnR.
#
# Arguments:
#   warehouse  name of the warehouse (--arg)
#   plans      true if auto_explain writes plans into the log, else false (--argjson)
#
# With plans each plan is an event: it says how many rows were really read and returned. Loads by
# COPY have no plan; they are events of their own line, without rows, which the log does not have.
# Without plans each statement that was run is an event, without rows. Of the extended protocol only
# the line of the execution counts: parsing and binding have lines of their own. Statements that
# failed are left out: their lines have no duration.
#
# What is none of these and no line that is known to tell of something else is not understood: the
# events of the others come all the same, and at the end jq fails with how many lines it were, and
# the first. A server that speaks another language (lc_messages) is seen so, and a log without plans
# where there should be some.

def microseconds: tonumber * 1000 | round;

# The log's time zone must be UTC (log_timezone): names of other zones can't be resolved.
def utc:
  if test(" (UTC|GMT)$") then sub(" (?<zone>[A-Z]+)$"; "Z") | sub(" "; "T")
  else error("log_timezone must be UTC, but the log has \(.)") end;

# The kind of a statement by its first word.
def kind:
  ltrimstr("(") | ascii_upcase
  | if test("^\\s*(SELECT|VALUES|TABLE|WITH|FETCH|SHOW)\\b") then "select"
    elif test("^\\s*INSERT\\b") then "insert"
    elif test("^\\s*UPDATE\\b") then "update"
    elif test("^\\s*DELETE\\b") then "delete"
    elif test("^\\s*MERGE\\b") then "merge"
    elif test("^\\s*COPY\\b.*\\bFROM\\b"; "m") then "copy"
    elif test("^\\s*COPY\\b"; "m") then "unload"
    elif test("^\\s*CREATE\\b.*\\bAS\\s+(SELECT|WITH|VALUES|TABLE)\\b"; "m") then "create_table_as"
    elif test("^\\s*(CREATE|ALTER|DROP|TRUNCATE|COMMENT|GRANT|REVOKE|REINDEX|REFRESH)\\b") then "ddl"
    elif test("^\\s*(VACUUM|ANALYZE|CLUSTER|CHECKPOINT)\\b") then "maintenance"
    else "other" end;

# Every node of a plan.
def nodes: ., (.Plans[]? | nodes);

# Whether a node hands on rows of another, rather than reading its own.
def hands_on:
  (."Node Type" | . == "CTE Scan" or . == "WorkTable Scan")
  or ([.Plans[]? | ."Parent Relationship"] | any(. == "Outer" or . == "Inner" or . == "Member" or . == "Subquery"));

# Rows that were read, kept or not: by an insert those that it was given.
def rows_read:
  [nodes | select(hands_on | not)
   | ((."Actual Rows" // 0) + (."Rows Removed by Filter" // 0)
      + (."Rows Removed by Index Recheck" // 0)) * (."Actual Loops" // 0)]
  | add | round;

def of_plan:
  (.message | capture("^duration: (?<ms>[0-9.]+) ms  plan:\n(?<plan>.*)$"; "m")) as $found
  | ($found.plan | fromjson) as $explained
  | $explained.Plan as $plan
  | {
      statement: (if $plan."Node Type" == "ModifyTable" then $plan.Operation | ascii_downcase
                  else $explained."Query Text" | kind | if . == "create_table_as" then . else "select" end end),
      executed_us: ($found.ms | microseconds),
      rows_processed: ($plan | rows_read),
      rows_returned: (($plan."Actual Rows" // 0) * ($plan."Actual Loops" // 0) | round),
      bytes_scanned: ((($plan."Shared Hit Blocks" // 0) + ($plan."Shared Read Blocks" // 0)) * 8192)
    };

def of_statement:
  (.message | capture("^duration: (?<ms>[0-9.]+) ms  (statement|execute [^:]*): (?<text>.*)$"; "m"))
  | {
      statement: (.text | kind),
      executed_us: (.ms | microseconds),
      rows_processed: 0,
      rows_returned: 0,
      bytes_scanned: 0
    }
  | select(($plans | not) or .statement == "copy");

# What a line is: an event's duration (of a plan, or of a statement), a duration that is no event of its
# own, or something else that the server tells. Null: not understood.
def kind_of_line:
  if type != "object" or (.message | type) != "string" then null
  elif .error_severity != "LOG" then
    # Names of severities are translated too.
    if .error_severity | IN("DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "FATAL", "PANIC") then "other"
    else null end
  elif .message | test("^duration: [0-9.]+ ms  plan:\n\\s*\\{") then "plan"
  elif .message | test("^duration: [0-9.]+ ms  (statement|execute [^:]*): ") then "statement"
  elif .message | test("^duration: [0-9.]+ ms  (parse|bind) [^:]*: ") then "step"
  # A duration alone, a plan as text, or a fastpath call: what was run is not said.
  elif .message | test("^duration: ") then null
  # In another language: "Dauer: 0.123 ms  Anweisung: …"; units are translated too.
  elif .message | test("^[^:：0-9]{1,40}[:：] ?[0-9]+[.,][0-9]{3} ") then null
  else "other" end;

def event($line; $query):
  (if $line.kind == "plan" then of_plan else of_statement end) as $measured
  | {
      type: "warehouse.query",
      occurred_at: (.timestamp | utc),
      warehouse: $warehouse,
      database: (.dbname // ""),
      statement: $measured.statement,
      queued_us: 0,
      executed_us: $measured.executed_us,
      rows_processed: $measured.rows_processed,
      rows_returned: $measured.rows_returned,
      bytes_scanned: $measured.bytes_scanned,
      cache_hit: false,
      outcome: "ok",
      principal: (.user // ""),
      fingerprint: $query,
      # Says which line of the log it was, so that no two events are the same line.
      log_line: "\(.session_id)/\(.line_num)"
    };

# One line of the log: its kind, and its event if it is one.
def line:
  . as $text
  # The query's id as it stands in the line: it has more digits than a number of jq keeps.
  | (capture("\"query_id\":(?<id>-?[0-9]+)") // { id: "" }) as $query
  | (try fromjson catch null)
  | { kind: kind_of_line } as $line
  | if $line.kind == "plan" and $plans or $line.kind == "statement" then
      # What fails here is a plan or time of another form.
      (try { kind: $line.kind, out: [event($line; $query.id)] } catch { kind: null, why: tostring })
    else $line end
  | . + { text: $text };

def shortened: if length > 200 then .[:200] + "…" else . end;

foreach (((. // empty), inputs) , null) as $text (
  { lines: 0, plans: 0, statements: 0, unknown: 0, first: null, out: [] };
  .out = []
  | if $text == null then .ended = true
    elif $text | test("^\\s*$") then .lines += 1
    else
      .lines += 1
      | .lines as $number
      | ($text | line) as $line
      | .out = ($line.out // [])
      | if $line.kind == "plan" then .plans += 1 elif $line.kind == "statement" then .statements += 1 else . end
      | if $line.kind == null then
          .unknown += 1
          | .first = (.first // "line \($number): \($line.why // $line.text | shortened)")
        else . end
    end;
  .out[],
  if .ended and .unknown > 0 then
    error("\(.unknown) of \(.lines) lines were not understood, the first is \(.first)\n"
      + "(the server must log with lc_messages = 'C' and, for plans, auto_explain.log_format = 'json')")
  elif .ended and $plans and .plans == 0 and .statements > 0 then
    error("\(.statements) of \(.lines) lines are statements, and none is a plan: is auto_explain loaded? "
      + "Without it: --argjson plans false")
  else empty end
)
