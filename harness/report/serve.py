"""Serve: the report's page on this machine, made anew whenever a run has ended."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from harness.records.store import BrokenRun, RunStore, StoredRun
from harness.report.build import ReportRequest, build_report
from harness.report.trust import trusted
from harness.report.write import METHODS, live_page, methods_page

LOOPBACK = "127.0.0.1"
HTML, TEXT = "text/html; charset=utf-8", "text/plain; charset=utf-8"


class LiveReport:
    """The page of a suite's runs below ``root``, kept until a record is added or replaced."""

    def __init__(self, root: Path, request: ReportRequest) -> None:
        """Nothing is read before it is asked for."""
        self.root = root
        self.request = request
        self._lock = threading.Lock()
        self._made: tuple[str, bytes] | None = None

    def version(self) -> str:
        """Changes whenever a record of the suite does: a digest of their names, sizes and times."""
        found = sorted((self.root / self.request.suite).glob("*/*/record.json"))
        digest = hashlib.sha256()
        for path in found:
            try:
                state = path.stat()
            except FileNotFoundError:  # replaced between the two looks
                continue
            digest.update(f"{path}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
        return digest.hexdigest()[:16]

    def page(self) -> bytes:
        """The page as the records are now."""
        with self._lock:
            version = self.version()
            if self._made is None or self._made[0] != version:
                self._made = (version, self._build(version))
            return self._made[1]

    def _build(self, version: str) -> bytes:
        found = list(trusted(RunStore(self.root).scan(self.request.suite)))
        runs = [item for item in found if isinstance(item, StoredRun)]
        broken = [item for item in found if isinstance(item, BrokenRun)]
        return live_page(build_report(runs, broken, self.request), version).encode()


def make_server(live: LiveReport, port: int) -> ThreadingHTTPServer:
    """A server on the loopback interface alone; ``port`` 0 takes a free one.

    It answers three paths and reads no file by a name that a request gives, so that there is
    nothing to traverse; it takes no other method than GET and HEAD.

    Raises:
        OSError: the port is taken.
    """
    answers: dict[str, tuple[str, Callable[[], bytes]]] = {
        "/": (HTML, live.page),
        "/version": (TEXT, lambda: live.version().encode()),
        f"/{METHODS}": (TEXT, methods_page),
    }

    class Handler(BaseHTTPRequestHandler):
        server_version = "harness"
        sys_version = ""

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, *, body: bool) -> None:
            if self.headers.get("Host") not in named:
                # Another name that leads here is a page elsewhere trying to read this one.
                self.send_error(HTTPStatus.FORBIDDEN)
                return
            kind, make = answers.get(self.path, (None, None))
            if kind is None or make is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            data = make()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its own name
            """Requests are not worth a line."""

    server = ThreadingHTTPServer((LOOPBACK, port), Handler)
    named = [f"{name}:{server.server_port}" for name in (LOOPBACK, "localhost")]
    return server
