#!/usr/bin/env bash
# The history of a git repository as lake events, one JSON object a line: each file that a commit of
# the main line added, changed or removed is a write or a delete, with its size.
#
#   examples/git-history.sh REPOSITORY [BUCKET] | lakegauge publish --source git -
#
# Used space of the bucket is then the sum of `git ls-tree -r -l HEAD`. Needs git and jq.
# What a step of it does not understand is an error of the whole.
set -euo pipefail
here=$(dirname "$0")
repository=${1:?usage: git-history.sh REPOSITORY [BUCKET]}
bucket=${2:-$(basename "$(cd "$repository" && pwd)" .git)}

# A merge is compared with its first parent only, and a rename is a delete and a write: so the changes
# of all commits together are the tree of HEAD. Names come as they are, with NUL between them; a line
# break in a name becomes the character 1.
git -C "$repository" log -z --reverse --first-parent -m --root --no-renames --raw --no-abbrev \
    --format='commit %ct %an' HEAD |
  tr '\0\n' '\n\1' |
  jq -nrR -f "$here/git-changes.jq" |
  git -C "$repository" cat-file --batch-check='%(objectsize) %(rest)' |
  jq -cnR --arg bucket "$bucket" -f "$here/git-events.jq"
