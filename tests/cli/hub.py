"""Hub: a loopback server that speaks the endpoints which an upload by huggingface_hub calls."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_loopbackTokenOfATest"


@dataclass
class Hub:
    """What the server was asked and what it holds: repositories, objects, committed files."""

    address: str = ""
    refuses: bool = False
    asked: list[str] = field(default_factory=list)
    repositories: dict[str, Any] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON of one request."""
        if method == "PUT":
            self.objects[path.rpartition("/")[2]] = body
            return 200, {}
        if path == "/api/repos/create":
            asked = json.loads(body)
            self.repositories[f"{asked['organization']}/{asked['name']}"] = asked
            return 200, {"url": f"{self.address}/{asked['organization']}/{asked['name']}"}
        if "/preupload/" in path:
            return 200, {"files": [self._mode(item) for item in json.loads(body)["files"]]}
        if path.endswith("/info/lfs/objects/batch"):
            return 200, {"transfer": "basic", "objects": self._places(json.loads(body))}
        if "/commit/" in path:
            self._commit(body)
            owner, name = path.split("/")[3:5]
            address = f"{self.address}/{owner}/{name}/commit/{'a' * 40}"
            return 200, {"commitUrl": address, "commitOid": "a" * 40}
        if path == "/api/validate-yaml":
            status, found = 200, {"errors": [], "warnings": []}
        else:
            status, found = 404, {"error": [f"no such endpoint: {path}"]}
        return status, found

    @staticmethod
    def _mode(item: dict[str, Any]) -> dict[str, Any]:
        large = item["path"].endswith((".safetensors", ".gguf"))
        mode = "lfs" if large else "regular"
        return {"path": item["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}

    def _places(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {**item, "actions": {"upload": {"href": f"{self.address}/objects/{item['oid']}"}}}
            for item in batch["objects"]
        ]

    def _commit(self, body: bytes) -> None:
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.files[value["path"]] = self.objects[value["oid"]]
        self.commits += 1


@contextmanager
def hub() -> Iterator[Hub]:
    """A hub on a free loopback port, for as long as the block lasts."""
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.asked.append(f"{self.command} {self.path}")
            allowed = self.command == "PUT" or self.headers["Authorization"] == f"Bearer {TOKEN}"
            status, found = state.answer(self.command, self.path.partition("?")[0], body)
            if state.refuses or not allowed:
                status, found = 403, {"error": "you may not write here"}
            data = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = answer  # noqa: N815 - the names that http.server calls

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
