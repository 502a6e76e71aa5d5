"""Prints the file size of the model that each candidate toolchain makes from an archive's frozen graph.

    python benchmarks/candidate_sizes.py --checkpoint ARCHIVE

The file size does not depend on the weights, and on the pictures only if a range is missing, but it depends on the node
names. The sizes can therefore be compared with that of a published file whose graph has the same names.
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

_IO_TYPES = ("int8", "float32")


def main() -> None:
    """Converts and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, metavar="ARCHIVE", help="a path, or `official`")
    arguments = parser.parse_args()
    print(f"{'made with':34}{'int8 I/O':>11}{'float I/O':>12}  names of input and output, int8 I/O")
    source = stand_ins.checkpoint(arguments.checkpoint)
    with tempfile.TemporaryDirectory() as scratch:
        for chain in TOOLCHAINS:
            files = {io_type: Path(scratch) / f"{chain.option}-{io_type}.tflite" for io_type in _IO_TYPES}
            for io_type, file in files.items():
                stand_ins.make(Plan(chain, io_type), source, file)
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
