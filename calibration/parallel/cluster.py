"""Work on an existing Dask cluster, through Dask's own executor of `concurrent.futures`.

Whoever can reach a scheduler can run code on its workers, and on the scheduler: for networks one trusts, or with TLS.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import pickle
import re
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, wait
from typing import Any

from calibration.parallel import remote
from recreate_model.support.errors import ResourceError, ToolError, UsageError

_ADDRESS = re.compile(r"(tcp|tls)://(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(\d{1,5})")
# Seconds: for a scheduler to answer and a first worker to be there; for a lost connection to be let go.
_PATIENCE = 5
# Seconds that a cluster may be without workers while it works: those started by a nanny come back sooner.
_PATIENCE_WITHOUT_WORKERS = 15
# Tasks with the scheduler at a time: enough for a hundred processors, few enough for it to stay quick.
_IN_FLIGHT = 200


def check_address(text: str) -> None:
    """Raises UsageError unless `text` is the address of a scheduler: `tcp://HOST:PORT`, or `tls://HOST:PORT`."""
    match = _ADDRESS.fullmatch(text)
    if not match or not 0 < int(match[3]) < 1 << 16:
        raise UsageError(
            expected="--cluster to be the address of a Dask scheduler, tcp://HOST:PORT",
            found=repr(text),
            next_step="give the address that the scheduler logs, such as tcp://127.0.0.1:8786",
        )


def run(setup: Callable[[], Any], task: Callable[[Any, Any], Any], items: Iterable[Any], address: str) -> Iterator[Any]:
    """As `workers.Workers.run`, on the workers of the scheduler at `address`. A worker that dies is done without.

    Raises:
        ResourceError: no scheduler or no worker there, or a worker with other code or tools.
        ToolError: the scheduler, or every worker, was lost.
    """
    token = uuid.uuid4().hex
    with _connected(address) as client:
        _refuse_strangers(client, address)
        executor = client.get_executor(pure=False)
        try:
            # What a job has in common travels to each worker once. As a task's result it can be made again when the
            # workers that hold it die, which scattered data cannot; as bytes it needs none of our code to arrive, and
            # a worker that cannot read what arrives would wait for ever.
            job = client.submit(bytes, pickle.dumps((remote.identity(), pickle.dumps((setup, task)))), pure=False)
            pending: deque[Future[Any]] = deque()
            rest = iter(items)
            while True:
                for item in itertools.islice(rest, _IN_FLIGHT - len(pending)):
                    pending.append(executor.submit(_on_worker("work"), token, job, pickle.dumps(item)))
                if not pending:
                    return
                yield _result(pending.popleft(), client, address)
        finally:
            # Done, or left early by an error or Ctrl-C: what has not started never does.
            with contextlib.suppress(OSError):
                executor.shutdown(wait=False)


def _on_worker(name: str) -> Callable[..., Any]:
    """A function of `remote`, called where it arrives, with the worker's own address in front.

    Pickle cannot name a function inside another, so Dask sends its code: the scheduler, which reads every task, then
    needs nothing of ours, and a worker that has nothing of ours can say so.
    """

    module_name = remote.__name__  # a text travels; the module itself would have to be imported to arrive

    def call(*arguments: Any, dask_worker: Any = None) -> Any:
        from importlib import import_module

        from distributed import get_worker

        # Dask gives it by name to what is run beside the tasks; a task asks for it.
        worker = (dask_worker or get_worker()).address
        try:
            module = import_module(module_name)
        except ImportError as error:
            raise ImportError(f"{worker}, where {error}") from error
        return getattr(module, name)(worker, *arguments)

    return call


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Any]:
    """A client of the scheduler at `address`, with at least one worker."""
    import asyncio

    try:
        import dask
        import distributed
    except ImportError as error:
        raise ResourceError(
            expected="the Python package distributed, which --cluster works through",
            found=f"{error}",
            next_step="run `make cluster`, or leave --cluster out",
        ) from error
    # These packages log with the standard library; what concerns the user is in our errors.
    for name in ("distributed", "distributed.client", "tornado", "tornado.application", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        # It warns of versions that differ, which `_refuse_strangers` looks at, and of the size of a network.
        warnings.simplefilter("ignore", distributed.versions.VersionMismatchWarning)
        stack.enter_context(dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TiB"}))
        try:
            asyncio.run(_shake_hands(address))
            client = distributed.Client(address, timeout=_PATIENCE, set_as_default=False)
        except Exception as error:
            raise ResourceError(
                expected=f"a Dask scheduler at {address}",
                found=f"no answer of one ({str(error) or type(error).__name__})",
                next_step="start one with `python -m dask scheduler`, or give the address of one that runs",
            ) from error
        stack.callback(client.close, timeout=_PATIENCE)
        try:
            client.wait_for_workers(1, timeout=_PATIENCE)
        except distributed.TimeoutError as error:
            raise ResourceError(
                expected=f"workers at the scheduler {address}",
                found=f"none within {_PATIENCE} seconds",
                next_step=f"in the project's folder, `python -m dask worker {address} --no-nanny --nthreads 1`",
            ) from error
        yield client


async def _shake_hands(address: str) -> None:
    """Raises any exception where no scheduler answers.

    For somebody silent a client would wait without a limit, and one that fails otherwise says so once more as it goes.
    """
    import asyncio

    import distributed
    from distributed.comm import connect
    from distributed.core import send_recv

    arguments = distributed.Security().get_connection_args("client")

    async def who() -> str:
        connection = await connect(address, timeout=_PATIENCE, **arguments)
        answer = await send_recv(connection, op="identity", reply=True)
        await connection.close()
        return str(answer["type"])

    found = await asyncio.wait_for(who(), _PATIENCE + 1)
    if found != "Scheduler":
        raise OSError(f"a {found.lower()} is there")


def _refuse_strangers(client: Any, address: str) -> None:
    """Raises ResourceError for a scheduler or worker that would give other results, or cannot be talked to."""
    versions = client.get_versions()
    ours = _spoken(versions["client"])
    for place, theirs in {address: versions["scheduler"], **versions["workers"]}.items():
        if isinstance(theirs, dict) and _spoken(theirs) != ours:
            raise ResourceError(
                expected=f"the whole cluster to have {ours}, as this machine",
                found=f"{place} with {_spoken(theirs)}",
                next_step="start the scheduler and its workers with the versions of this machine",
            )
    found = client.run(_on_worker("check"), remote.identity(), on_error="return")
    for _, answer in sorted(found.items()):
        if isinstance(answer, ImportError):
            raise _without_our_code(answer)
        # One that cannot be reached is for the scheduler to drop; if it comes back, `remote.work` looks at it again.
        if isinstance(answer, Exception) and not isinstance(answer, OSError):
            raise answer


def _spoken(versions: Any) -> str:
    """What both ends must agree in to understand each other at all, of a row of Dask's table of versions."""
    packages = versions["packages"]
    return f"Python {'.'.join(packages['python'].split('.')[:2])} and distributed {packages['distributed']}"


def _result(future: Future[Any], client: Any, address: str) -> Any:
    from distributed.scheduler import KilledWorker

    deserted = None
    while not wait([future], timeout=1).done:
        try:
            if client.nthreads():
                deserted = None
                continue
        except (OSError, RuntimeError) as error:
            raise _lost(f"the scheduler at {address} to stay", "that the connection was lost") from error
        deserted = deserted or time.monotonic()
        if time.monotonic() - deserted > _PATIENCE_WITHOUT_WORKERS:
            raise _lost(f"workers at {address} until the work is done", "that all of them are gone")
    try:
        return future.result()
    except CancelledError as error:
        raise _lost(f"the scheduler at {address} to stay", "that the connection was lost") from error
    except KilledWorker as error:
        raise _lost(f"workers at {address} to stay alive", "a task during which one after another died") from error
    except ImportError as error:
        raise _without_our_code(error) from error


def _lost(expected: str, found: str) -> ToolError:
    return ToolError(
        expected=expected, found=found, next_step="look at the logs of the cluster, then run the same command again"
    )


def _without_our_code(error: ImportError) -> ResourceError:
    return ResourceError(
        expected="every worker of the cluster to have this project's code",
        found=str(error),
        next_step="start it in the project's folder, by `python -m dask worker`",
    )
