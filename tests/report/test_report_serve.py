"""The served page: loopback only, read only, nothing to traverse, new after every run."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.report.build import ReportRequest
from harness.report.serve import LOOPBACK, LiveReport, make_server
from tests.report.records import Made, write_run


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    write_run(tmp_path / "runs", Made("qlora_nf4"))
    (tmp_path / "secret.txt").write_text("secret")
    server = make_server(LiveReport(tmp_path / "runs", ReportRequest(suite="quick")), 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def ask(
    server: ThreadingHTTPServer, path: str, method: str = "GET", host: str | None = None
) -> tuple[int, bytes]:
    port = server.server_address[1]
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=60)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or f"{LOOPBACK}:{port}")
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def test_the_page_grows_with_the_runs(served: ThreadingHTTPServer, tmp_path: Path) -> None:
    status, page = ask(served, "/")
    assert status == 200
    assert b"lora_bf16</code>" not in page
    version = ask(served, "/version")[1]
    assert b'data-version="' + version in page
    write_run(tmp_path / "runs", Made("lora_bf16"))
    assert ask(served, "/version")[1] != version
    assert b"lora_bf16</code>" in ask(served, "/")[1]


def test_there_may_be_no_run_yet(tmp_path: Path) -> None:
    live = LiveReport(tmp_path / "runs", ReportRequest(suite="quick"))
    assert b"No run has been scored yet" in live.page()


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "//secret.txt",
        "/runs/quick",
        "/statistics.md/../secret.txt",
        "/?../secret.txt",
    ],
)
def test_no_path_leads_to_a_file(served: ThreadingHTTPServer, path: str) -> None:
    status, body = ask(served, path)
    assert status == 404
    assert b"secret\n" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_written(served: ThreadingHTTPServer, method: str) -> None:
    assert ask(served, "/", method)[0] == 501


def test_a_foreign_name_for_this_machine_is_refused(served: ThreadingHTTPServer) -> None:
    assert ask(served, "/", host="attacker.example")[0] == 403


def test_only_the_loopback_interface_listens(served: ThreadingHTTPServer) -> None:
    assert served.server_address[0] == "127.0.0.1"
    assert served.socket.family == socket.AF_INET
