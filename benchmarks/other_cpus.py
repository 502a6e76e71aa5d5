"""Files made on other CPUs, which fold BatchNorm to other last bits, proved on this one.

    python benchmarks/other_cpus.py --checkpoint ARCHIVE
    python benchmarks/other_cpus.py --checkpoint ARCHIVE --cpus Haswell,Nehalem --toolchain 2.5.0,2.6.0 --keep FOLDER

Needs `qemu-x86_64`. For each toolchain and CPU it converts the archive's frozen graph there, from the same random
pictures, and proves the file here. Prints the verdict, and how many folding factors had to be moved off those of this
CPU, what that changed in the model, and by how many units in the last place the farthest is off the exact one. The
first row of a toolchain was made here, without the emulator. A conversion takes 15 to 60 s under emulation.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import stand_ins
from stand_ins import Plan

from recreate_model.prove import toolchain
from recreate_model.prove.prove import prove
from recreate_model.support.digest import digest_bytes

_COLUMNS = f"{'made with':33}{'on':13}{'made':>8}  {'SHA-1':10}{'verdict':12}{'proved':>8}"
_MOVED = f"{'factors moved':>18}{'weights':>9}{'scales':>8}{'biases':>8}{'ulps':>6}"


def main() -> None:
    """Makes, proves and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, metavar="ARCHIVE", help="a path, or `official`")
    parser.add_argument("--cpus", default="Haswell,EPYC,SandyBridge", help="as `qemu-x86_64 -cpu help` names them")
    parser.add_argument("--toolchain", default="2.5.0", help="as `prove --toolchain` takes them")
    parser.add_argument("--seed", type=int, default=7, help="of the pictures")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where the files are to stay")
    arguments = parser.parse_args()
    print(stand_ins.machine())
    print(_COLUMNS + _MOVED)
    source = stand_ins.checkpoint(arguments.checkpoint)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for chain in toolchain.parse(arguments.toolchain):
            for cpu in ("", *arguments.cpus.split(",")):
                file = folder / f"{chain.option}-{cpu or 'here'}.tflite"
                made = stand_ins.make(Plan(chain, cpu=cpu, seed=arguments.seed), source, file)
                start = time.perf_counter()
                published = file.read_bytes()
                proof = prove(published, str(file), source, None, stand_ins.python_of)
                seconds = time.perf_counter() - start
                sha1 = digest_bytes(published, "sha1")[:8]
                row = f"{chain.name:33}{cpu or 'this CPU':13}{made:6.1f} s  {sha1:10}{proof.verdict.name:12}"
                if moves := proof.attempts[-1].corrections:
                    factors = f"{moves.channels:,} of {moves.of:,}"
                    moved = f"{factors:>18}{moves.weights:9,}{moves.scales:8,}{moves.biases:8,}{moves.ulps:6}"
                else:
                    moved = f"{'none':>18}"
                print(f"{row}{seconds:6.1f} s{moved}", flush=True)


if __name__ == "__main__":
    main()
