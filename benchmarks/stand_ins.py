"""Shared by the benchmarks about published files: reads an archive as `prove` does, and makes files from it.

An unmodified converter makes the files and calibrates itself, independently of the code that is measured; on this CPU,
or on one that `qemu-x86_64` emulates.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import emulator

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline import console
from pipeline.interface.views import prove as prove_view
from pipeline.request.request import Request
from pipeline.request.resolve import resolve
from recreate_model.network.spec import MOBILENET_V2
from recreate_model.prove import toolchain
from recreate_model.prove.prove import Checkpoint
from recreate_model.prove.toolchain import Toolchain
from recreate_model.support import resources

ROOT = Path(__file__).resolve().parents[1]
_SCRIPT = Path(__file__).with_name("plain_convert.py")
_LIMIT = 900  # seconds; an emulated conversion takes 15 to 60


def checkpoint(archive: str) -> Checkpoint:
    """The archive's weights and its frozen graph.

    Raises:
        SystemExit: the archive has no frozen graph.
    """
    recipe, machine = resolve(Request(checkpoint=archive, images="procedural"), console.NoBars(), may_fetch=True)
    found = prove_view.checkpoint(recipe, machine)
    if found.frozen_graph is None:
        raise SystemExit(
            f"error: expected an archive with a frozen graph; found none in {archive}; done: nothing was measured; "
            "next: give another --checkpoint"
        )
    return found


def python_of(chain: Toolchain) -> Path:
    """The Python of the toolchain's environment, made on first use."""
    return toolchain.ensure(chain, resources.cache_folder(), lambda text: print(text, file=sys.stderr, flush=True))


@dataclass(frozen=True)
class Plan:
    """How to make a file.

    Attributes:
        chain: the converter.
        io_type: type of the input and the output, `int8` or `float32`.
        cpu: name of the CPU to emulate; empty for this CPU.
        seed, pictures: seed and number of the calibration pictures.
    """

    chain: Toolchain
    io_type: str = "int8"
    cpu: str = ""
    seed: int = 7
    pictures: int = 2


def make(plan: Plan, source: Checkpoint, out: Path) -> float:
    """Makes the file and returns the time it took, in seconds.

    Raises:
        SystemExit: the converter failed.
    """
    job = {
        "input": MOBILENET_V2.input_name,
        "output": MOBILENET_V2.output_name,
        "input_shape": (1, source.model.resolution, source.model.resolution, 3),
        "io_type": plan.io_type,
        "quantizer": plan.chain.quantizer,
        "seed": plan.seed,
        "pictures": plan.pictures,
        "out": str(out),
    }
    python = python_of(plan.chain)
    program = emulator.emulated(python, plan.cpu, out.parent) if plan.cpu else python
    assert source.frozen_graph is not None  # checked by `checkpoint`
    with tempfile.TemporaryDirectory() as scratch:
        graph = Path(scratch) / "graph.pb"
        graph.write_bytes(source.frozen_graph)
        command = [program, "-I", _SCRIPT, json.dumps({"graph": str(graph), **job})]
        environment = emulator.environment()
        start = time.perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_LIMIT, check=False)
        seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"error: {plan.chain.name} on {plan.cpu or 'this CPU'} failed: {done.stderr[-300:]}")
    return seconds


def machine() -> str:
    """A line with the architecture, the number of processors, the load and the Python version."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    processors = len(os.sched_getaffinity(0))
    return f"{platform.machine()}, {processors} processors, load {load:.1f}, Python {platform.python_version()}"
