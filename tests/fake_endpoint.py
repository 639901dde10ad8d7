"""A real server on loopback that speaks as much of OpenAI's chat completions as a judge needs,
and what it is told."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """What the server sends: a status, a body, headers, and how many seconds later."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    after: float = 0.0


def says(text: str | None, *, after: float = 0.0) -> Reply:
    """A good completion."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return Reply(
        {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]},
        after=after,
    )


def fails(status: int, told: str = "no", **headers: str) -> Reply:
    return Reply(
        {"error": {"message": told}},
        status,
        {name.replace("_", "-"): v for name, v in headers.items()},
    )


@dataclass
class Server:
    """The URL, and what was asked: bodies, headers and times in the order of arrival."""

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    most: int = 0  # requests at once
    active: int = 0
    lock: Any = field(default_factory=threading.Lock)

    @property
    def asked(self) -> list[str]:
        """The user's message of each request."""
        return [str(body["messages"][-1]["content"]) for body in self.bodies]


@contextmanager
def endpoint(answer: Callable[[int, dict[str, Any]], Reply]) -> Iterator[Server]:
    """Serve until the end of the `with`; `answer` is given the number of the request, from 0,
    and its body."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with served.lock:
                number = len(served.bodies)
                served.bodies.append(body)
                served.headers.append({name.lower(): value for name, value in self.headers.items()})
                served.times.append(time.monotonic())
                served.active += 1
                served.most = max(served.most, served.active)
            reply = (
                answer(number, body)
                if self.path.endswith("/v1/chat/completions")
                else fails(404, "no such page")
            )
            over.wait(reply.after)
            with served.lock:
                served.active -= 1
            text = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
            try:
                self.send_response(reply.status)
                for name, value in ({"Content-Type": "application/json"} | reply.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())
            except OSError:
                pass  # whoever asked has gone

        def log_message(self, format: str, *args: Any) -> None:
            pass

    over = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    served = Server(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    )
    thread.start()
    try:
        yield served
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()
