"""A client of HTTP that waits no longer, reads no more and asks nobody else than it was told.

The time-outs of httpx are for each read: a server that sends a byte now and then would hold them
for ever.
"""

import threading
import time
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

LARGEST = 4 * 2**20  # bytes of a reply, its headers included: one of 512 tokens has a few thousand


class _Budget(threading.local):
    """What is left to the request that this thread sends: one thread sends one at a time."""

    end = 0.0  # when it must be over, by the monotonic clock
    bytes = 0

    def begin(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds
        self.bytes = LARGEST


class _Stream:
    """A connection of httpcore whose reads and writes come out of the budget."""

    def __init__(self, stream: Any, budget: _Budget, core: ModuleType) -> None:
        self._stream = stream
        self._budget = budget
        self._core = core  # the package that it is of, whose errors the client understands

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data: bytes = self._stream.read(max_bytes, self._seconds(timeout))
        self._budget.bytes -= len(data)
        if self._budget.bytes < 0:
            raise self._core.ReadError(f"its reply has more than {LARGEST:,} bytes")
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._seconds(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> "_Stream":
        stream = self._stream.start_tls(ssl_context, server_hostname, self._seconds(timeout))
        return _Stream(stream, self._budget, self._core)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def _seconds(self, asked: float | None) -> float:
        """How long this step may take."""
        left = self._budget.end - time.monotonic()
        if left <= 0:
            raise self._core.ReadTimeout("the whole reply took too long")
        return left if asked is None else min(asked, left)


class _Backend:
    """Connections as httpcore makes them, each a `_Stream`."""

    def __init__(self, backend: Any, budget: _Budget, core: ModuleType) -> None:
        self._backend = backend
        self._budget = budget
        self._core = core

    def connect_tcp(self, *given: Any, **options: Any) -> _Stream:
        stream = self._backend.connect_tcp(*given, **options)
        return _Stream(stream, self._budget, self._core)

    def connect_unix_socket(self, *given: Any, **options: Any) -> _Stream:
        stream = self._backend.connect_unix_socket(*given, **options)
        return _Stream(stream, self._budget, self._core)

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


def bounded(client: Any, *, seconds: float, wait: Callable[[], None]) -> Any:
    """The client, with a limit on the time and on the bytes of each whole request.

    It follows no redirect, which would hand the prompts to another host, and asks for replies that
    are not compressed, of which a few bytes may stand for gigabytes.

    Args:
        client: a client of httpx, under whatever name openai has that package, that has sent
            nothing yet.
        seconds: for a request and its whole reply.
        wait: called before each request, those tried again included; its time is not counted.
    """
    budget = _Budget()
    web = _package(client._transport)

    def begin(_: Any) -> None:
        wait()
        budget.begin(seconds)

    def check(response: Any) -> None:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise web.DecodingError("its reply is compressed, which was not asked for")

    client.follow_redirects = False
    client.headers["Accept-Encoding"] = "identity"
    client.event_hooks = {"request": [begin], "response": [check]}
    # httpx has no option for what its pools connect by; a test holds that it works. The mounts are
    # the proxies of the environment, None where there is to be none.
    for transport in filter(None, (client._transport, *client._mounts.values())):
        pool = transport._pool
        pool._network_backend = _Backend(pool._network_backend, budget, _package(pool))
    return client


def _package(thing: Any) -> ModuleType:
    """The package that an object's class is of."""
    return import_module(type(thing).__module__.partition(".")[0])
