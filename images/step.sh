#!/usr/bin/env bash
# Run one step of the set-up: one line before it and one after it, with its time. What it prints goes to a log; the end
# of that is shown only when the step fails.
#
#   images/step.sh LOG "installing the Python packages (about 40 seconds)" COMMAND ARGUMENT...
#
# Exit status: that of the command.
set -uo pipefail

log=$1 doing=$2
shift 2
mkdir -p "${log%/*}"
printf '%s\n' "$doing"
began=$SECONDS
printf '\n== %s\n' "$*" >>"$log"
output=$(mktemp)
trap 'rm -f "$output"' EXIT
trap 'exit 130' INT TERM
"$@" >"$output" 2>&1
status=$?
cat "$output" >>"$log"
if ((status != 0)); then
  tail -n 15 "$output" >&2
  printf '%s\n' "error: ${doing% (*} failed after $((SECONDS - began)) s" "  → less $log    # all of its output" >&2
  exit "$status"
fi
printf '%s\n' "… done in $((SECONDS - began)) s"
