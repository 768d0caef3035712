# PostgreSQL's JSON log as warehouse events, one a line. Run with -cR; reads one log line after the
# other.
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

# The query's id as it stands in the line: it has more digits than a number of jq keeps.
(capture("\"query_id\":(?<id>-?[0-9]+)") // { id: "" }) as $query
| fromjson
| select(.error_severity == "LOG" and (.message | startswith("duration: ")))
| (if .message | test("^duration: [0-9.]+ ms  plan:\n") then select($plans) | of_plan
   else of_statement end) as $measured
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
    fingerprint: $query.id,
    # Says which line of the log it was, so that no two events are the same line.
    log_line: "\(.session_id)/\(.line_num)"
  }
