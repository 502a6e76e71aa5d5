"""How long the model is that each candidate toolchain makes of an archive's frozen graph.

    python benchmarks/candidate_sizes.py --checkpoint ARCHIVE

A file's length does not depend on the weights, and on the pictures only where a range is missing, but it does depend on
the names of nodes. So these are lengths to hold against a published file's, if its graph has the same names.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import stand_ins
from stand_ins import Plan

from recreate_model.network.spec import MOBILENET_V2
from recreate_model.prove.toolchain import TOOLCHAINS
from recreate_model.tflite.model_view import read_model

_ENDS = ("int8", "float32")


def main() -> None:
    """Makes and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, metavar="ARCHIVE", help="a path, or `official`")
    arguments = parser.parse_args()
    print(f"{'made with':34}{'int8 ends':>11}{'float ends':>12}  names of input and output, int8 ends")
    source = stand_ins.checkpoint(arguments.checkpoint)
    with tempfile.TemporaryDirectory() as scratch:
        for chain in TOOLCHAINS:
            files = {ends: Path(scratch) / f"{chain.option}-{ends}.tflite" for ends in _ENDS}
            for ends, file in files.items():
                stand_ins.make(Plan(chain, ends), source, file)
            view = read_model(files["int8"].read_bytes())
            sizes = [file.stat().st_size for file in files.values()]
            published = (view.input.name, view.output.name) == (
                MOBILENET_V2.int8_input_name,
                MOBILENET_V2.int8_output_name,
            )
            names = "as published" if published else f"{view.input.name}, {view.output.name}"
            print(f"{chain.name:34}{sizes[0]:11,}{sizes[1]:12,}  {names}", flush=True)


if __name__ == "__main__":
    main()
