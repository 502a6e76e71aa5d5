"""Runs tasks on an existing Dask cluster, through Dask's `concurrent.futures` executor.

Anyone who can reach a scheduler can run code on it and its workers. Use it in a trusted network, or with TLS.
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
_TIMEOUT = 5  # seconds to connect to the scheduler, to find a first worker, and to close a lost connection
# Seconds without any worker before a job is given up. A nanny restarts its worker sooner.
_NO_WORKERS_TIMEOUT = 15
# Tasks submitted at a time: enough for a hundred processors, few enough to keep the scheduler responsive.
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
    """As `workers.Workers.run`, on the workers of the scheduler at `address`.

    If a worker dies, the others take over its tasks.

    Raises:
        ResourceError: there is no scheduler or no worker, or a worker has different code or tools.
        ToolError: the scheduler, or every worker, was lost.
    """
    token = uuid.uuid4().hex
    with _connected(address) as client:
        _check_cluster(client, address)
        executor = client.get_executor(pure=False)
        try:
            # The data that all tasks share is sent to each worker once. It is the result of a task, not scattered data,
            # so that Dask can compute it again if the workers that hold it die. It is bytes, so that a worker needs
            # none of this project's code to receive it: a worker that cannot unpickle a message would wait forever.
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
            # After an error or Ctrl-C, tasks that have not started are canceled.
            with contextlib.suppress(OSError):
                executor.shutdown(wait=False)


def _on_worker(name: str) -> Callable[..., Any]:
    """A function that calls a function of `remote` on the worker that runs it, with the worker's address in front.

    Pickle cannot refer to a nested function by name, so Dask sends its code. So the scheduler, which unpickles every
    task, does not need this project's code, and a worker without that code can report it.
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
    # Errors that concern the user are raised, so the libraries' logs are silenced.
    for name in ("distributed", "distributed.client", "tornado", "tornado.application", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        # Dask warns of different versions, which `_check_cluster` checks, and of large tasks, which are intended.
        warnings.simplefilter("ignore", distributed.versions.VersionMismatchWarning)
        stack.enter_context(dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TiB"}))
        try:
            asyncio.run(_check_scheduler(address))
            client = distributed.Client(address, timeout=_TIMEOUT, set_as_default=False)
        except Exception as error:
            raise ResourceError(
                expected=f"a Dask scheduler at {address}",
                found=f"no scheduler that answers ({str(error) or type(error).__name__})",
                next_step="start one with `python -m dask scheduler`, or give the address of a running one",
            ) from error
        stack.callback(client.close, timeout=_TIMEOUT)
        try:
            client.wait_for_workers(1, timeout=_TIMEOUT)
        except distributed.TimeoutError as error:
            raise ResourceError(
                expected=f"workers at the scheduler {address}",
                found=f"none within {_TIMEOUT} seconds",
                next_step=f"in the project's folder, `python -m dask worker {address} --no-nanny --nthreads 1`",
            ) from error
        yield client


async def _check_scheduler(address: str) -> None:
    """Raises an exception unless a scheduler answers at the address.

    This runs before a client is created: a client waits without limit for a peer that does not answer, and reports
    other failures a second time when it is closed.
    """
    import asyncio

    import distributed
    from distributed.comm import connect
    from distributed.core import send_recv

    arguments = distributed.Security().get_connection_args("client")

    async def peer_type() -> str:
        connection = await connect(address, timeout=_TIMEOUT, **arguments)
        answer = await send_recv(connection, op="identity", reply=True)
        await connection.close()
        return str(answer["type"])

    found = await asyncio.wait_for(peer_type(), _TIMEOUT + 1)
    if found != "Scheduler":
        raise OSError(f"a {found.lower()} is there")


def _check_cluster(client: Any, address: str) -> None:
    """Raises ResourceError if the scheduler or a worker has versions, code or tools other than this machine's."""
    versions = client.get_versions()
    ours = _protocol_versions(versions["client"])
    for peer, theirs in {address: versions["scheduler"], **versions["workers"]}.items():
        if isinstance(theirs, dict) and _protocol_versions(theirs) != ours:
            raise ResourceError(
                expected=f"the scheduler and all workers to have {ours}, as this machine",
                found=f"{peer} with {_protocol_versions(theirs)}",
                next_step="start the scheduler and its workers with the versions of this machine",
            )
    found = client.run(_on_worker("check"), remote.identity(), on_error="return")
    for _, answer in sorted(found.items()):
        if isinstance(answer, ImportError):
            raise _code_missing(answer)
        # The scheduler drops a worker that cannot be reached. If it comes back, `remote.work` checks it again.
        if isinstance(answer, Exception) and not isinstance(answer, OSError):
            raise answer


def _protocol_versions(versions: Any) -> str:
    """The versions that two peers must share to exchange pickled messages, from an entry of Dask's version table."""
    packages = versions["packages"]
    return f"Python {'.'.join(packages['python'].split('.')[:2])} and distributed {packages['distributed']}"


def _result(future: Future[Any], client: Any, address: str) -> Any:
    from distributed.scheduler import KilledWorker

    """The result of a task.

    Raises:
        ToolError: the scheduler, or every worker, was lost.
        ResourceError: a worker does not have this project's code.
    """
    no_workers_since = None
    while not wait([future], timeout=1).done:
        try:
            if client.nthreads():
                no_workers_since = None
                continue
        except (OSError, RuntimeError) as error:
            raise _connection_lost(address) from error
        no_workers_since = no_workers_since or time.monotonic()
        if time.monotonic() - no_workers_since > _NO_WORKERS_TIMEOUT:
            raise _cluster_failed(f"workers at {address} until the work is done", "no worker left")
    try:
        return future.result()
    except CancelledError as error:
        raise _connection_lost(address) from error
    except KilledWorker as error:
        raise _cluster_failed(f"workers at {address} to stay alive", "a task that several workers died on") from error
    except ImportError as error:
        raise _code_missing(error) from error


def _connection_lost(address: str) -> ToolError:
    return _cluster_failed(f"the connection to the scheduler at {address} to last", "a lost connection")


def _cluster_failed(expected: str, found: str) -> ToolError:
    return ToolError(
        expected=expected, found=found, next_step="look at the logs of the cluster, then run the same command again"
    )


def _code_missing(error: ImportError) -> ResourceError:
    return ResourceError(
        expected="every worker of the cluster to have this project's code",
        found=str(error),
        next_step="start the worker in the project's folder, with `python -m dask worker`",
    )
