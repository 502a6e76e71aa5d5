"""What a worker of a cluster runs of ours: it shows that it has the same code and tools, then works as a process here.

Not for: finding the cluster, or giving it work (`cluster`).
"""

from __future__ import annotations

import functools
import pickle
import threading
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from recreate_model.support.digest import digest_bytes
from recreate_model.support.errors import ResourceError

# An installed copy holds the other two packages inside `recreate_model`; a checkout has all three side by side.
_PREFIX = __package__.removesuffix("calibration.parallel")
_PACKAGES = ("recreate_model", f"{_PREFIX}calibration", f"{_PREFIX}pipeline")
# Distributions whose versions can change what a worker gives back.
TOOLS = (
    "ai-edge-litert",
    "ethos-u-vela",
    "flatbuffers",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "simplejpeg",
)
# Vela, and loading a model, capture the output of the whole process: where a worker has threads, they take turns.
_turn = threading.Lock()
# token -> the task and what its setup returned, of the last job alone: a state holds a whole network.
_prepared: dict[str, tuple[Callable[[Any, Any], Any], Any]] = {}


@functools.cache
def identity() -> dict[str, str]:
    """What decides a result: each source file of ours with its SHA-256, each tool with its version.

    Found once in a process, which goes on with the code it has loaded whatever is on the disk later.
    """
    root = Path(__file__).resolve().parents[__name__.count(".")]
    folders = [root.joinpath(*package.split(".")) for package in _PACKAGES]
    sources = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    digests = {path.relative_to(root).as_posix(): digest_bytes(path.read_bytes()) for path in sources}
    return digests | {name: _version(name) for name in TOOLS}


def check(worker: str, expected: Mapping[str, str]) -> None:
    """Raises ResourceError, in the name of `worker`, where this process has another `identity` than is expected."""
    found = identity()
    different = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if not different:
        return
    first, *others = different
    raise ResourceError(
        expected=f"every worker of the cluster to have the code and tools of this machine ({first}: "
        f"{_short(expected.get(first))})",
        found=f"{worker} with {_short(found.get(first))}" + (f", and {len(others)} more that differ" if others else ""),
        next_step="bring it up to date and start it again, or stop it",
    )


def work(worker: str, token: str, job: bytes, item: bytes) -> Any:
    """One item of a job, on the state of this process; the state is made when the job's first item comes.

    Args:
        token: names the job.
        job: the pickled identity expected and, pickled once more, setup and task: code is loaded after the check alone.
        item: pickled.

    Raises:
        ResourceError: as `check`, for workers that came after the work began.
    """
    with _turn:
        if token not in _prepared:
            expected, inner = pickle.loads(job)
            check(worker, expected)
            setup, task = pickle.loads(inner)
            _prepared.clear()
            _prepared[token] = task, setup()
        task, state = _prepared[token]
        return task(state, pickle.loads(item))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _short(value: str | None) -> str:
    """A version as it is, the beginning of a digest."""
    if value is None:
        return "no such file"
    return f"SHA-256 {value[:12]}" if len(value) == 64 else value
