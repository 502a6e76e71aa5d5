"""A file server on the loopback interface whose next responses can have faults, each chosen by its name."""

from __future__ import annotations

import contextlib
import http.server
import re
import socket
import struct
import threading
from collections.abc import Iterable, Iterator

HTML = b"<!DOCTYPE html>\n<html><body>Please log in to use this network.</body></html>\n"
ENDLESS = 64 << 20  # bytes after which even the endless response ends, so that no test can hang
_PATIENCE = 20.0  # seconds a stalled response waits at most, for the same reason


class LocalServer(http.server.ThreadingHTTPServer):
    """Serves one body under every path.

    Attributes:
        body: what is served.
        faults: one name for each of the next requests, see `_Handler`; later requests succeed.
        asked: path and Range header of every request so far.
        encodings: Accept-Encoding header of every request so far.
        sent: bytes of the last endless response that were sent.
        stalled: set while a response stalls half-way.
        go_on: set it to let a stalled response continue.
    """

    daemon_threads = True

    def __init__(self, body: bytes, faults: Iterable[str] = ()) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.body = body
        self.faults = iter(faults)
        self.asked: list[tuple[str, str | None]] = []
        self.encodings: list[str | None] = []
        self.sent = 0
        self.stalled = threading.Event()
        self.go_on = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def ranges(self) -> list[str | None]:
        return [sent for _, sent in self.asked]

    def handle_error(self, request: object, client_address: object) -> None:
        """Prints nothing: clients that disconnect early are part of the tests."""


@contextlib.contextmanager
def serving(body: bytes, faults: Iterable[str] = ()) -> Iterator[LocalServer]:
    """A running server of `body`, stopped at the end."""
    with LocalServer(body, faults) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.go_on.set()
            server.shutdown()
            thread.join()


def unused_url() -> str:
    """An address at which no server listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: LocalServer

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append((self.path, asked))
        self.server.encodings.append(self.headers.get("Accept-Encoding"))
        fault = next(self.server.faults, "")
        body = self.server.body
        if fault == "other content":
            body = bytes(byte ^ 0xFF for byte in body)
        if fault == "longer file":
            body += b"more"
        wanted = re.fullmatch(r"bytes=(\d+)-", asked or "")
        start = int(wanted[1]) if wanted and fault != "ignores ranges" else 0
        if fault == "hangs up":
            self.close_connection = True
        elif fault.isdecimal():
            self._answer(int(fault), b"an error page")
        elif fault == "html":
            self._answer(200, HTML)
        elif fault == "html of unknown size":
            self._answer(200, HTML, sized=False)
        elif fault == "encoded":
            self._answer(200, body, {"Content-Encoding": "gzip"})
        elif fault == "unknown size":
            self._answer(200, body, sized=False)
        elif fault == "unknown size, short":
            self._answer(200, body[: len(body) // 2], sized=False)
        elif fault == "endless":
            self._endless()
        elif start >= len(body):
            self._answer(416, b"")
        elif start and fault == "wrong range":
            self._answer(206, body, {"Content-Range": f"bytes 0-{len(body) - 1}/{len(body)}"})
        elif start:
            self._answer(206, body[start:], {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}, fault)
        else:
            self._answer(200, body, {}, fault)

    def _answer(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, fault: str = "", *, sized: bool = True
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if sized:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        half = len(body) // 2
        self.wfile.write(body[:half])
        if fault == "reset":
            # A linger time of zero resets the connection instead of closing it.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif fault != "short":
            if fault == "stalls":
                self.server.stalled.set()
                self.server.go_on.wait(_PATIENCE)
            self.wfile.write(body[half:])

    def _endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        for _ in range(ENDLESS >> 16):
            self.wfile.write(bytes(1 << 16))
            self.server.sent += 1 << 16

    def log_message(self, format: str, *args: object) -> None:
        """Prints nothing, to keep the output of the tests clean."""
