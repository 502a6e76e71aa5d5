"""Measures the time of `diff`, `recover` and `prove` on published files, from the command line.

    python benchmarks/prove_speed.py                                          seeded weights, no TensorFlow of 2021
    python benchmarks/prove_speed.py --checkpoint ARCHIVE                     files made here with TensorFlow 2.5.0
    python benchmarks/prove_speed.py --checkpoint ARCHIVE A.tflite B.tflite   your files

Times are wall-clock times of whole processes; a missing environment is made first, which is not timed. `recover` is
timed without a build folder, where it must fold the checkpoint first, and with one. `prove` is timed on each file, and
on the first file with the seeded weights, which refute it unless they made it. Its verdict is printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import stand_ins
from stand_ins import ROOT, Plan

from recreate_model.prove.toolchain import TOOLCHAINS


def timed(*arguments: str | Path, accepted: tuple[int, ...] = (0,)) -> tuple[float, str]:
    """The time of one run of the command line in seconds, and its standard output."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "pipeline", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode not in accepted:
        raise SystemExit(f"{' '.join(command)}: status {done.returncode}: {done.stderr[-300:]}")
    return seconds, done.stdout


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="published files, of the checkpoint's network")
    parser.add_argument("--checkpoint", default="seeded", metavar="ARCHIVE")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        user_files = [path.resolve() for path in arguments.files]
        checkpoint = arguments.checkpoint
        if checkpoint not in ("seeded", "official", "auto"):
            checkpoint = str(Path(checkpoint).resolve())
        files = user_files or _made(checkpoint, scratch)
        print(f"{stand_ins.machine()}; median of {arguments.repeats}")
        repeats = range(arguments.repeats)
        # Two files, or one file twice.
        pair = (*files, *files)[:2]
        _print("diff", [timed("diff", *pair, "--accept", "DIFFERENT")[0] for _ in repeats])
        common = ("--checkpoint", checkpoint)
        for what, folder in (("recover, no build folder", "cold{}"), ("recover", "warm")):
            if folder == "warm":
                timed(*_recover(files[0], scratch / folder), *common)
            runs = [timed(*_recover(files[0], scratch / folder.format(n)), *common)[0] for n in repeats]
            _print(what, runs)
        for file in files:
            # The first run may make an environment.
            document = json.loads(timed("prove", file, *common, "--json")[1])
            _print(f"prove {file.name}", [timed("prove", file, *common)[0] for _ in repeats], _verdict(document))
        seeded = ("prove", files[0], "--checkpoint", "seeded")
        document = json.loads(timed(*seeded, "--json", accepted=(0, 1))[1])
        verdict = _verdict(document)
        _print("prove, seeded weights", [timed(*seeded, accepted=(0, 1))[0] for _ in repeats], verdict)


def _recover(file: Path, out: Path) -> tuple[str | Path, ...]:
    return "recover", file, "--out", out, "--output", f"{out}.ranges.json"


def _verdict(document: dict) -> str:
    """The verdict of `prove`, from its JSON, and the program that made the file."""
    if document["refutations"]:
        return f"refuted, {document['verdict']}"
    corrections = document["rebuilt"][-1]["moved"]
    return f"{document['verdict']}, {document['rebuilt'][-1]['with']}" + (
        f", {corrections['channels']:,} factors corrected" if corrections else ""
    )


def _made(checkpoint: str, folder: Path) -> list[Path]:
    """Two files: from the archive with different pictures, or two builds of the seeded weights."""
    if checkpoint != "seeded":
        source = stand_ins.checkpoint(checkpoint)
        files = [folder / f"pictures-{seed}.tflite" for seed in (1, 2)]
        for seed, file in enumerate(files, 1):
            stand_ins.make(Plan(TOOLCHAINS[0], seed=seed), source, file)
        return files
    files = []
    for count in ("1", "2"):
        out = folder / f"built-{count}"
        timed("quantize", "--checkpoint", "seeded", "--images", "procedural", "--calib", count, "--out", out)
        files.append(next(out.glob("*/*.tflite")).rename(folder / f"pictures-{count}.tflite"))
    return files


def _print(what: str, seconds: list[float], remark: str = "") -> None:
    median = statistics.median(seconds)
    line = f"  {what:<36} {median:6.2f} s, {min(seconds):.2f} to {max(seconds):.2f}  {remark}"
    print(line.rstrip(), flush=True)


if __name__ == "__main__":
    main()
