"""Serve: the report's page on this machine, made anew whenever a run has ended."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from harness.errors import HarnessError
from harness.records.store import BrokenRun, RunStore, StoredRun
from harness.report.browse import has_items, items_page
from harness.report.build import Report, ReportRequest, build_report
from harness.report.trust import trusted
from harness.report.write import ITEMS, METHODS, Gallery, html_page, methods_page

LOOPBACK = "127.0.0.1"
REST = 5.0  # times as long as the making of a page took
HTML, TEXT = "text/html; charset=utf-8", "text/plain; charset=utf-8"


class LiveReport:
    """The page of a suite's runs below ``root``, made anew in the background as records come.

    What is asked for is answered with the newest page there is. Nothing is made while nobody
    asks, nothing is read or drawn again that has not changed, and after the making of a page
    there is a rest, so that runs on this machine keep their processor.
    """

    def __init__(
        self,
        root: Path,
        request: ReportRequest,
        warn: Callable[[str], None] = lambda _: None,
        rest: float = REST,
    ) -> None:
        """Nothing is read before it is asked for; ``warn`` hears why no page could be made."""
        self.root = root
        self.request = request
        self._warn = warn
        self._rest = rest
        self._lock = threading.Lock()
        self._made: tuple[str, bytes] | None = None
        self._report: Report | None = None
        self._seen = ""  # the state of the records that the last making began with
        self._not_before = 0.0
        self._maker: threading.Thread | None = None
        self._runs = _Runs(root, request.suite)
        self._gallery = Gallery()

    def version(self) -> str:
        """Changes whenever there is another page."""
        return self._newest()[0]

    def page(self) -> bytes:
        """The newest page; the first one is waited for."""
        return self._newest()[1]

    def items(self) -> bytes | None:
        """The page of items as of the newest page, or None where there are no items."""
        self._newest()
        with self._lock:
            made = None if self._report is None else items_page(self._report, "/")
        return None if made is None else made.encode()

    def finish(self) -> None:
        """Wait until no page is being made."""
        maker = self._maker
        if maker is not None:
            maker.join()

    def _newest(self) -> tuple[str, bytes]:
        with self._lock:
            made = self._made
            if made is None:
                return self._make(self._runs.state())
            if self._rested():
                state = self._runs.state()
                if state != self._seen:
                    self._maker = threading.Thread(target=self._remake, args=(state,), daemon=True)
                    self._maker.start()
            return made

    def _rested(self) -> bool:
        busy = self._maker is not None and self._maker.is_alive()
        return not busy and time.monotonic() >= self._not_before

    def _remake(self, state: str) -> None:
        try:
            self._make(state)
        except HarnessError as error:
            self._warn(f"the page stays as it was: {error.what}")

    def _make(self, state: str) -> tuple[str, bytes]:
        """Make the page of the records as they are now."""
        began = time.monotonic()
        self._seen = state
        runs, broken = self._runs.read()
        report = build_report(runs, broken, self.request)
        links = (("Items", f"/{ITEMS}"),) if has_items(report) else ()
        pictures = self._gallery.pictures(report)
        made = state, html_page(report, pictures, state, links).encode()
        self._made, self._report = made, report
        ended = time.monotonic()
        self._not_before = ended + self._rest * (ended - began)
        return made


class _Runs:
    """The records of a suite; each is read and checked once, until its file changes."""

    def __init__(self, root: Path, suite: str) -> None:
        self._store = RunStore(root)
        self._folder = root / suite
        self._kept: dict[Path, tuple[str, StoredRun | BrokenRun]] = {}

    def state(self) -> str:
        """A digest of the names, sizes and times of the records."""
        found = "\n".join(f"{path}\0{state}" for path, state in self._files().items())
        return hashlib.sha256(found.encode()).hexdigest()[:16]

    def read(self) -> tuple[list[StoredRun], list[BrokenRun]]:
        """The records as they are now, and those that cannot be read."""
        kept: dict[Path, tuple[str, StoredRun | BrokenRun]] = {}
        for path, state in self._files().items():
            before = self._kept.get(path)
            if before is None or before[0] != state:
                (run,) = trusted([self._store.read(path)])
                before = (state, run)
            kept[path] = before
        self._kept = kept
        found = [run for _, run in kept.values()]
        return (
            [run for run in found if isinstance(run, StoredRun)],
            [run for run in found if isinstance(run, BrokenRun)],
        )

    def _files(self) -> dict[Path, str]:
        """Every record's file, with what changes when it is written anew."""
        found = {}
        for path in sorted(self._folder.glob("*/*/record.json")):
            try:
                state = path.stat()
            except FileNotFoundError:  # replaced between the two looks
                continue
            found[path] = f"{state.st_size} {state.st_mtime_ns} {state.st_ino}"
        return found


def make_server(live: LiveReport, port: int) -> ThreadingHTTPServer:
    """A server on the loopback interface alone; ``port`` 0 takes a free one.

    It answers four paths and reads no file by a name that a request gives, so that there is
    nothing to traverse; it takes no other method than GET and HEAD.

    Raises:
        OSError: the port is taken.
    """
    answers: dict[str, tuple[str, Callable[[], bytes | None]]] = {
        "/": (HTML, live.page),
        "/version": (TEXT, lambda: live.version().encode()),
        f"/{ITEMS}": (HTML, live.items),
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
            kind, make = answers.get(self.path, (TEXT, lambda: None))
            data = make()
            if data is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
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
