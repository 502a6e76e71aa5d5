"""Time of `diff`, `recover` and `prove` on published files, run as a user runs them.

    python benchmarks/prove_speed.py                                          seeded weights, no TensorFlow of 2021
    python benchmarks/prove_speed.py --checkpoint ARCHIVE                     files made here with TensorFlow 2.5.0
    python benchmarks/prove_speed.py --checkpoint ARCHIVE A.tflite B.tflite   yours

Times are wall-clock, of whole processes; an environment that is missing is made first, and not counted. `recover` is
timed without a build folder, when it folds the checkpoint first, and with one. `prove` is run on each file, with the
verdict beside it, and on the first one against the seeded weights, which refute it unless they made it.
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
    """Seconds of one run of the command line, and what it printed."""
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
        given = [path.resolve() for path in arguments.files]
        checkpoint = arguments.checkpoint
        if checkpoint not in ("seeded", "official", "auto"):
            checkpoint = str(Path(checkpoint).resolve())
        files = given or _made(checkpoint, scratch)
        print(f"{stand_ins.machine()}; median of {arguments.repeats}")
        repeats = range(arguments.repeats)
        # Two files, or one with itself.
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
            _print(f"prove {file.name}", [timed("prove", file, *common)[0] for _ in repeats], _how(document))
        refuting = ("prove", files[0], "--checkpoint", "seeded")
        document = json.loads(timed(*refuting, "--json", accepted=(0, 1))[1])
        how = _how(document)
        _print("prove, seeded weights", [timed(*refuting, accepted=(0, 1))[0] for _ in repeats], how)


def _recover(file: Path, out: Path) -> tuple[str | Path, ...]:
    return "recover", file, "--out", out, "--output", f"{out}.ranges.json"


def _how(document: dict) -> str:
    if document["refutations"]:
        return f"refuted, {document['verdict']}"
    moved = document["rebuilt"][-1]["moved"]
    return f"{document['verdict']}, {document['rebuilt'][-1]['with']}" + (
        f", {moved['channels']:,} factors moved" if moved else ""
    )


def _made(checkpoint: str, folder: Path) -> list[Path]:
    """Two files of the archive from other pictures; or of the seeded weights, one by today's converter."""
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


def _print(what: str, seconds: list[float], how: str = "") -> None:
    median = statistics.median(seconds)
    line = f"  {what:<36} {median:6.2f} s, {min(seconds):.2f} to {max(seconds):.2f}  {how}"
    print(line.rstrip(), flush=True)


if __name__ == "__main__":
    main()
