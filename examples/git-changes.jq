# First half of git-history.sh: what `git log -z --raw` says, one NUL-terminated piece a line, becomes
# a line for `git cat-file --batch-check`: the id of a blob, and behind it what is known of the change.
#
# Run with -nrR. A piece that is none of a commit, a change or its path is not understood: at the end jq
# fails with how many there were, and the first. So it is with renames (--no-renames forbids them) and
# with merges that were compared with several parents (-m and --first-parent forbid that).

# Submodules are commits of other repositories: nothing of them is stored in this one.
def is_file: . != "000000" and . != "160000";

foreach (inputs, null) as $piece (
  { time: 0, author: "", change: null, out: null, pieces: 0, unknown: 0, first: null };
  .out = null
  | if $piece == null then
      # A change whose path did not come.
      .ended = true | if .change then .unknown += 1 | .first = (.first // "the end") else . end
    else .pieces += 1 end
  | if .ended then .
    elif .change then
      # A piece after a change is its path, whatever it looks like.
      (.change
       | if .new_mode | is_file then { blob: .new_blob, operation: "write" }
         elif .old_mode | is_file then { blob: .old_blob, operation: "delete" }
         else null end) as $done
      | .change = null
      | if $done then
          # Strictly ascending: the commit's second, or one microsecond after the change before.
          .time = ([.time + 1, .second * 1000000] | max)
          | .out = $done + { time, author, key: $piece }
        else . end
    elif $piece | test("^commit [0-9]+ ") then
      ($piece | capture("^commit (?<second>[0-9]+) (?<author>.*)$")) as $commit
      | .second = ($commit.second | tonumber)
      | .author = $commit.author
    elif $piece | test("^\u0001?:[0-7]{6} [0-7]{6} [0-9a-f]+ [0-9a-f]+ [AMDT]$") then
      ($piece | ltrimstr("\u0001") | ltrimstr(":") | split(" ")) as $words
      | .change = { old_mode: $words[0], new_mode: $words[1], old_blob: $words[2], new_blob: $words[3] }
    elif $piece == "" then .
    else .unknown += 1 | .first = (.first // $piece) end;
  (.out | select(. != null) | "\(.blob) \({ time, author, operation, key } | tojson)"),
  if .ended and .unknown > 0 then
    error("\(.unknown) of \(.pieces) pieces were not understood, the first is \(.first | tojson): "
      + "is it the output of `git log` with the options of docs/real-input.md?")
  else empty end
)
