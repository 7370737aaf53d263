#!/usr/bin/env bash
# Asks a driver to check a buffer that is not as the cell leaves it; succeeds where it says so.
#
#   check_can_fail.sh FILL TEXT DRIVER [ARGUMENT]...    the buffer's fill, and what the answer must contain
set -euo pipefail

fill=$1 text=$2
shift 2
list=$(mktemp)
trap 'rm -f "$list"' EXIT
# One copy: from 0 to 0, of 4096 bytes.
printf '%b' '\0\0\0\0\0\0\0\0' '\0\0\0\0\0\0\0\0' '\0\020\0\0\0\0\0\0' >"$list"
answers=$(printf '%s\n' "buffer 16384 $fill" "cell $list 0" check | "$@")
echo "$answers"
grep -qF "failed $text" <<<"$answers"
