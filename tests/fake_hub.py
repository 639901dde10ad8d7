"""A real server on loopback that speaks as much of the Hub's protocol as a push and a fetch
need."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What lies there: the files of each repository, and what was asked for."""

    url: str
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    cards: list[str] = field(default_factory=list)  # that were to be checked
    asked: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)


@contextmanager
def hub(*, refuses: int = 0) -> Iterator[Hub]:
    """Serve until the end of the `with`; with `refuses` every writing is answered by this
    status."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._heard()
            if refuses:
                self._say({"error": "not yours"}, refuses)
            elif self.path == "/api/repos/create":
                told = json.loads(body)
                name = f"{told['organization']}/{told['name']}" if told.get("organization") else ""
                name = name or told["name"]
                here.repos.setdefault(name, {})
                here.private.setdefault(
                    name, told.get("private") or told.get("visibility") == "private"
                )
                self._say({"url": f"{here.url}/{name}", "name": name, "id": name})
            elif self.path == "/api/validate-yaml":
                here.cards.append(json.loads(body)["content"])
                self._say({"errors": [], "warnings": []})
            elif "/preupload/" in self.path:
                files = [
                    {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for each in json.loads(body)["files"]
                ]
                self._say({"files": files})
            elif "/commit/" in self.path:
                self._commit(body)
            else:
                self._say({"error": "no such page"}, 404)

        def _commit(self, body: bytes) -> None:
            _, _, kind, owner, name, *_ = self.path.split("/")
            assert kind == "models"
            for line in body.splitlines():
                each = json.loads(line)
                if each["key"] == "file":
                    held = each["value"]
                    assert held["encoding"] == "base64"
                    content = base64.b64decode(held["content"])
                    here.repos[f"{owner}/{name}"][held["path"]] = content
            url = f"{here.url}/{owner}/{name}/commit/{COMMIT}"
            self._say({"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            self._heard()
            parts = self.path.partition("?")[0].strip("/").split("/")
            if parts[:2] == ["api", "models"] and "/".join(parts[2:4]) in here.repos:
                name = "/".join(parts[2:4])
                files = [{"rfilename": file} for file in here.repos[name]]
                self._say({"id": name, "sha": COMMIT, "siblings": files, "private": False})
            elif len(parts) > 4 and parts[2] == "resolve":
                self._file(here.repos.get("/".join(parts[:2]), {}).get("/".join(parts[4:])))
            else:
                self._say({"error": "no such repository"}, 404)

        def _file(self, content: bytes | None) -> None:
            if content is None:
                self._say({"error": "no such file"}, 404, **{"X-Error-Code": "EntryNotFound"})
                return
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def _heard(self) -> None:
            here.asked.append(f"{self.command} {self.path}")
            here.tokens.add(self.headers.get("Authorization"))

        def _say(self, value: Any, status: int = 200, **headers: str) -> None:
            text = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            for name, said in headers.items():
                self.send_header(name, said)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    here = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    )
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
