"""Replaces `python` in the scripts of the documents, so that commands of the pipeline use the small build."""

from __future__ import annotations

import os
import sys

from tests.documents import small_arguments

arguments = sys.argv[1:]
if arguments[:2] == ["-m", "pipeline"]:
    arguments[2:] = small_arguments(arguments[2:])
os.execv(sys.executable, [sys.executable, *arguments])
