#!/bin/sh
# Writes the 1001 class labels of the model, one per line, `background` first. Works offline and from any folder.
#
# usage: ./get_class_labels.sh [OUTPUT]        OUTPUT defaults to labels.txt in the current folder
#
# Python: $PYTHON if set, else .venv/bin/python next to this script, else python3.
# Exit status: 0 done, 1 a check failed, 2 invalid usage, 4 Python, a package or a writable folder is missing, 5 the
# installed package has different labels.

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
    '' | -*) fail 2 'a file name' "'$output'" "$usage" ;;
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
    */*) python=$PWD/$python ;; # Python is started in another folder, so make the path absolute
esac
command -v "$python" >/dev/null 2>&1 || fail 4 'a Python interpreter' "no $python" 'install Python 3.10 or newer, or set PYTHON'

# The rename at the end would replace a device file, or move the file into a folder.
if [ -e "$output" ] && [ ! -f "$output" ]; then
    fail 4 'an output that is a regular file' "$output, which is not one" "$usage"
fi

temporary=$output.$$.tmp
# In a subshell, because a failed redirection ends the shell; -C refuses to overwrite an existing file.
(set -C && : >"$temporary") 2>/dev/null \
    || fail 4 'a writable folder' "$(dirname -- "$output"), which is not writable" 'give another OUTPUT'
trap 'rm -f -- "$temporary"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Reading the file back also detects a full disk.
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
    if not hasattr(error, "status"):  # another error, such as a full disk or an old Python
        text = (
            "expected Python to write the labels; found " + type(error).__name__ + ": " + text
            + "; done: nothing was written; next: free some space, or set PYTHON to Python 3.10 or newer"
        )
    sys.stderr.write("get_class_labels.sh: " + " ".join(text.split()) + "\n")
    sys.exit(getattr(error, "status", 4))
'
# Python searches the current folder for modules first, so it is started in the root.
(cd -- "$root" && PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "$python" -c "$program" "$temporary") || exit "$?"

lines=$(wc -l <"$temporary")
[ "$lines" -eq 1001 ] || fail 1 '1001 lines' "$lines" "check that $python is a Python interpreter"
first=$(head -n 1 "$temporary")
[ "$first" = background ] || fail 1 'background in the first line' "$first" "check that $python is a Python interpreter"

mv -f -- "$temporary" "$output" || fail 4 "permission to rename a file to $output" 'none' 'give another OUTPUT'
