# Second half of git-history.sh: what `git cat-file --batch-check='%(objectsize) %(rest)'` says of each
# change becomes a lake event.
#
# Arguments: bucket (name of the bucket). Run with -cnR. A line that is no size and change is not
# understood, as where git says that it has no such blob: at the end jq fails with how many there
# were, and the first.

def event:
  capture("^(?<bytes>[0-9]+) (?<change>\\{.*)$")
  | (.bytes | tonumber) as $bytes
  | .change | fromjson
  | {
      type: "lake.access",
      occurred_at: .time,
      bucket: $bucket,
      key,
      operation,
      bytes: (if .operation == "write" then $bytes else 0 end),
      object_bytes: (if .operation == "write" then $bytes else null end),
      duration_us: 0,
      outcome: "ok",
      principal: .author
    };

foreach (((. // empty), inputs), null) as $line (
  { lines: 0, unknown: 0, first: null, out: [] };
  if $line == null then .out = [] | .ended = true
  else
    .lines += 1
    | .out = [try ($line | event) catch empty]
    | if .out == [] then .unknown += 1 | .first = (.first // $line) else . end
  end;
  .out[],
  if .ended and .unknown > 0 then
    error("\(.unknown) of \(.lines) lines were not understood, the first is \(.first | tojson); "
      + "a blob that is \"missing\" is not in this clone: git fetch --refetch, or --unshallow")
  else empty end
)
