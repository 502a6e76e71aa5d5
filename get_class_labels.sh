#!/bin/sh
# Writes the 1001 class labels of the model, one per line, `background` first. Works offline, from any folder.
#
# usage: ./get_class_labels.sh [OUTPUT]        OUTPUT is labels.txt in the current folder unless given
#
# Python: $PYTHON if set, else .venv/bin/python beside this script, else python3.
# Exit status: 0 done, 1 a check failed, 2 bad usage, 4 no Python, no package or no place to write, 5 other labels found.

set -u

usage='usage: get_class_labels.sh [OUTPUT]'

# fail STATUS EXPECTED FOUND NEXT
fail() {
    printf 'get_class_labels.sh: expected %s; found %s; done: nothing was written; next: %s\n' "$2" "$3" "$4" >&2
    exit "$1"
}

[ "$#" -le 1 ] || fail 2 'at most one argument' "$#" "$usage"
output=${1-labels.txt}
case $output in
    -h | --help) printf '%s\n' "$usage"; exit 0 ;;
    '' | -*) fail 2 'the name of a file' "'$output'" "$usage" ;;
    /*) ;;
    *) output=$PWD/$output ;;
esac

root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) || exit 4
if [ -n "${PYTHON-}" ]; then
    python=$PYTHON
elif [ -x "$root/.venv/bin/python" ]; then
    python=$root/.venv/bin/python
else
    python=python3
fi
case $python in
    /*) ;;
    */*) python=$PWD/$python ;; # Python is started in another folder below
esac
command -v "$python" >/dev/null 2>&1 || fail 4 'a Python interpreter' "no $python" 'install Python 3.10 or newer, or set PYTHON'

# A rename onto a device or a folder would not do what was asked.
if [ -e "$output" ] && [ ! -f "$output" ]; then
    fail 4 'an output that is a regular file' "$output, which is something else" "$usage"
fi

temporary=$output.$$.tmp
# In a subshell, as a redirection that fails ends the shell; -C never writes over the file of someone else.
(set -C && : >"$temporary") 2>/dev/null \
    || fail 4 'a folder that can be written to' "$(dirname -- "$output"), which cannot" 'give another OUTPUT'
trap 'rm -f -- "$temporary"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Reading back what was written notices a full disk too.
program='
import sys
try:
    from pathlib import Path
    from recreate_model.support.digest import digest_file
    from recreate_model.support.errors import CheckError
    from recreate_model.network.labels import LABELS_SHA256, labels, labels_text
    path = Path(sys.argv[1])
    path.write_bytes(labels_text(labels()).encode())
    found = digest_file(path)
    if found != LABELS_SHA256:
        raise CheckError(expected="SHA-256 " + LABELS_SHA256, found=found, next_step="run it again")
except Exception as error:
    text = str(error)
    if not hasattr(error, "status"):  # not one of ours: a full disk, a Python too old
        text = (
            "expected this Python to write the labels; found " + type(error).__name__ + ": " + text
            + "; done: nothing was written; next: free some space, or set PYTHON to Python 3.10 or newer"
        )
    sys.stderr.write("get_class_labels.sh: " + " ".join(text.split()) + "\n")
    sys.exit(getattr(error, "status", 4))
'
# Started in the root, as Python looks for modules in the current folder before all others.
(cd -- "$root" && PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "$python" -c "$program" "$temporary") || exit "$?"

lines=$(wc -l <"$temporary")
[ "$lines" -eq 1001 ] || fail 1 '1001 lines' "$lines" "check what $python is"
first=$(head -n 1 "$temporary")
[ "$first" = background ] || fail 1 'background in the first line' "$first" "check what $python is"

mv -f -- "$temporary" "$output" || fail 4 "to rename a file to $output" 'a refusal' 'give another OUTPUT'
