"""Proves on this CPU files that were made on other CPUs, whose BatchNorm folding differs in the last bits.

    python benchmarks/other_cpus.py --checkpoint ARCHIVE
    python benchmarks/other_cpus.py --checkpoint ARCHIVE --cpus Haswell,Nehalem --toolchain 2.5.0,2.6.0 --keep FOLDER

Needs `qemu-x86_64`. For each toolchain and CPU it converts the archive's frozen graph on that CPU, always with the same
random pictures, and proves the file on this CPU. Prints the verdict, the number of corrections to BatchNorm folding
factors, what they change in the model, and the largest difference from an exact factor in units in the last place. The
first row of a toolchain is for this CPU, without the emulator. A conversion takes 15 to 60 s under emulation.
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
_CORRECTED = f"{'factors corrected':>18}{'weights':>9}{'scales':>8}{'biases':>8}{'ulps':>6}"


def main() -> None:
    """Converts, proves and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, metavar="ARCHIVE", help="a path, or `official`")
    parser.add_argument("--cpus", default="Haswell,EPYC,SandyBridge", help="as `qemu-x86_64 -cpu help` names them")
    parser.add_argument("--toolchain", default="2.5.0", help="as `prove --toolchain` takes them")
    parser.add_argument("--seed", type=int, default=7, help="of the pictures")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the files in this folder")
    arguments = parser.parse_args()
    print(stand_ins.machine())
    print(_COLUMNS + _CORRECTED)
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
                if found := proof.attempts[-1].corrections:
                    factors = f"{found.channels:,} of {found.of:,}"
                    corrected = f"{factors:>18}{found.weights:9,}{found.scales:8,}{found.biases:8,}{found.ulps:6}"
                else:
                    corrected = f"{'none':>18}"
                print(f"{row}{seconds:6.1f} s{corrected}", flush=True)


if __name__ == "__main__":
    main()
