# First half of git-history.sh: what `git log -z --raw` says, one NUL-terminated piece a line, becomes
# a line for `git cat-file --batch-check`: the id of a blob, and behind it what is known of the change.
#
# Run with -nrR.

# Submodules are commits of other repositories: nothing of them is stored in this one.
def is_file: . != "000000" and . != "160000";

foreach inputs as $piece (
  { time: 0, author: "", change: null, out: null };
  .out = null
  | if .change then
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
    elif $piece | startswith("commit ") then
      ($piece | capture("^commit (?<second>[0-9]+) (?<author>.*)$")) as $commit
      | .second = ($commit.second | tonumber)
      | .author = $commit.author
    elif $piece | test("^\u0001?:") then
      ($piece | ltrimstr("\u0001") | ltrimstr(":") | split(" ")) as $words
      | .change = { old_mode: $words[0], new_mode: $words[1], old_blob: $words[2], new_blob: $words[3] }
    else . end;
  .out | select(. != null)
  | "\(.blob) \({ time, author, operation, key } | tojson)"
)
