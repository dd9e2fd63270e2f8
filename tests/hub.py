"""Hub: a loopback server that answers as the Hugging Face hub does, from local folders."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
INFO = re.compile(r"/api/(models|datasets)/(?P<id>[^/]+/[^/]+)/revision/(?P<revision>[^/?]+)")
TREE = re.compile(r"/api/(models|datasets)/(?P<id>[^/]+/[^/]+)/tree/")
FILE = re.compile(r"/(datasets/)?(?P<id>[^/]+/[^/]+)/resolve/[^/]+/(?P<name>.+)")


@contextmanager
def serving(repositories: Mapping[str, Path]) -> Iterator[str]:
    """The address of a hub that holds these repositories, each with one commit."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            self._answer(*_reply(self.path, repositories))

        def _answer(self, code: int, body: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(code)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _reply(path: str, repositories: Mapping[str, Path]) -> tuple[int, bytes, Mapping[str, str]]:
    """Code, body and headers of the answer to a request for ``path``."""
    found = INFO.match(path) or FILE.match(path) or TREE.match(path)
    folder = repositories.get(found["id"]) if found else None
    if found is None or folder is None:
        return 404, b"", {"X-Error-Code": "RepoNotFound"}
    if found.re is TREE:
        return 200, _tree(folder), {"Content-Type": "application/json"}
    if found.re is INFO:
        return 200, _info(found["id"], folder), {}
    file = folder / found["name"]
    if not file.is_file():
        return 404, b"", {"X-Error-Code": "EntryNotFound"}
    data = file.read_bytes()
    headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
    return 200, data, headers


def _info(name: str, folder: Path) -> bytes:
    files = [{"rfilename": path.name} for path in sorted(folder.iterdir())]
    return json.dumps({"id": name, "sha": COMMIT, "siblings": files}).encode()


def _tree(folder: Path) -> bytes:
    files = [
        {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": COMMIT}
        for path in sorted(folder.iterdir())
    ]
    return json.dumps(files).encode()
