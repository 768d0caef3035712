# Second half of git-history.sh: what `git cat-file --batch-check='%(objectsize) %(rest)'` says of each
# change becomes a lake event.
#
# Arguments: bucket (name of the bucket). Run with -cR.

capture("^(?<bytes>[0-9]+) (?<change>.*)$")
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
  }
