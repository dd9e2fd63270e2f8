"""The served page: loopback only, read only, nothing to traverse, new after every run."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.records import store
from harness.report.build import ReportRequest
from harness.report.figures import draw
from harness.report.figures.canvas import Drawing
from harness.report.serve import LOOPBACK, LiveReport, make_server
from tests.report.records import Made, write_run, write_runs


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    write_run(tmp_path / "runs", Made("qlora_nf4"))
    (tmp_path / "secret.txt").write_text("secret")
    live = LiveReport(tmp_path / "runs", ReportRequest(suite="quick"), rest=0)
    server = make_server(live, 0)
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
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=600)
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
    until = time.monotonic() + 600  # only so that a hung test ends
    while b"lora_bf16</code>" not in (page := ask(served, "/")[1]):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert b'data-version="' + version not in page


def test_items_are_served_too(served: ThreadingHTTPServer) -> None:
    status, page = ask(served, "/items.html")
    assert status == 200
    assert b"Question 3: which reply fits?" in page
    assert b'href="/"' in page


def test_without_items_there_is_no_page_of_them(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", Made("qlora_nf4", status="oom"))
    live = LiveReport(tmp_path / "runs", ReportRequest(suite="quick"))
    assert live.items() is None
    assert b"items.html" not in live.page()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[object]]:
    """What is read and drawn, as it happens."""
    done: dict[str, list[object]] = {"read": [], "drawn": []}
    read, vector = store.RunStore.read, draw.draw_vector

    def reading(self: store.RunStore, path: Path) -> object:
        done["read"].append(path.parent.parent.name)
        return read(self, path)

    def drawing(made: Drawing, description: str) -> bytes:
        done["drawn"].append(made)
        return vector(made, description)

    monkeypatch.setattr(store.RunStore, "read", reading)
    monkeypatch.setattr(draw, "draw_vector", drawing)
    return done


def test_what_has_not_changed_is_neither_read_nor_drawn_again(
    tmp_path: Path, counted: dict[str, list[object]]
) -> None:
    write_runs(tmp_path, [Made("base"), Made("qlora_nf4")])
    live = LiveReport(tmp_path, ReportRequest(suite="quick"), rest=0)
    first = live.page()
    assert sorted(map(str, counted["read"])) == ["base", "qlora_nf4"]
    drawn = len(counted["drawn"])
    for _ in range(3):
        assert live.page() == first
    live.finish()
    assert len(counted["read"]) == 2
    write_run(tmp_path, Made("lora_bf16", status="oom"))
    assert live.page() == first, "the newest page there is, while another is made"
    live.finish()
    assert b"lora_bf16</code>" in live.page()
    assert counted["read"][2:] == ["lora_bf16"]
    again = counted["drawn"][drawn:]
    assert len(again) < drawn, "figures without the new row stay as they were"


def test_runs_keep_their_processor_after_a_page(tmp_path: Path) -> None:
    write_run(tmp_path, Made("base"))
    live = LiveReport(tmp_path, ReportRequest(suite="quick"), rest=1e9)
    first = live.page()
    write_run(tmp_path, Made("qlora_nf4"))
    for _ in range(3):
        assert live.page() == first
        live.finish()


def test_a_page_that_cannot_be_made_leaves_the_last_one(tmp_path: Path) -> None:
    folder = write_run(tmp_path, Made("base"))
    heard: list[str] = []
    request = ReportRequest(suite="quick", reference="base")
    live = LiveReport(tmp_path, request, heard.append, rest=0)
    first = live.page()
    (folder / "record.json").unlink()
    assert live.page() == first
    live.finish()
    assert live.page() == first
    assert heard == ["the page stays as it was: unknown reference 'base'"]


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
