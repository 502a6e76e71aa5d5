"""The code that runs on the workers of a cluster. It checks that code and tools are the same, then runs the tasks.

Not for: connecting to the cluster, or submitting tasks (`cluster`).
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
# Distributions whose versions can change the result of a task.
TOOLS = (
    "ai-edge-litert",
    "ethos-u-vela",
    "flatbuffers",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "simplejpeg",
)
# Vela, and loading a model, redirect the output of the whole process, so the threads of a worker must not overlap.
_lock = threading.Lock()
# Token -> the task and the state that its setup returned. Only for the last job, as a state holds a whole network.
_prepared: dict[str, tuple[Callable[[Any, Any], Any], Any]] = {}


@functools.cache
def identity() -> dict[str, str]:
    """Everything that a result depends on: source file -> SHA-256, and tool -> version.

    Computed once for each process, as later changes on disk do not affect code that is loaded.
    """
    root = Path(__file__).resolve().parents[__name__.count(".")]
    folders = [root.joinpath(*package.split(".")) for package in _PACKAGES]
    sources = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    digests = {path.relative_to(root).as_posix(): digest_bytes(path.read_bytes()) for path in sources}
    return digests | {name: _version(name) for name in TOOLS}


def check(worker: str, expected: Mapping[str, str]) -> None:
    """Raises ResourceError if the `identity` of this process is not as expected; `worker` is its name in the error."""
    found = identity()
    different = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if not different:
        return
    first, *others = different
    raise ResourceError(
        expected=f"every worker of the cluster to have the code and tools of this machine ({first}: "
        f"{_short(expected.get(first))})",
        found=f"{worker} with {_short(found.get(first))}" + (f", and {len(others)} more that differ" if others else ""),
        next_step="update that worker and start it again, or stop it",
    )


def work(worker: str, token: str, job: bytes, item: bytes) -> Any:
    """Runs the task of a job on one item. The first item of a job also runs its setup.

    Args:
        worker: name of this worker in an error.
        token: identifies the job.
        job: the pickled expected identity, and setup and task pickled a second time, so that their code is loaded only
            after the check.
        item: pickled.

    Raises:
        ResourceError: as `check`, for workers that joined after the job began.
    """
    with _lock:
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
    """A version as it is, or the first digits of a digest."""
    if value is None:
        return "no such file"
    return f"SHA-256 {value[:12]}" if len(value) == 64 else value
