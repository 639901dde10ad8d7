"""Where a server of this machine listens, how it is run, and how a request's body is read."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

from steerlab.core.errors import SteerlabError
from steerlab.studies.local.guard import Guard, as_error
from steerlab.studies.local.line import Line

try:
    import uvicorn
    from starlette.requests import ClientDisconnect, Request
except ImportError as error:
    raise SteerlabError(
        "the explorer and the endpoint need the extra `explore`; install it, with pip install "
        "'steerlab[explore]'"
    ) from error

PATIENCE = 10.0  # seconds that a request may take to arrive
CONNECTIONS = 100


@dataclass(frozen=True)
class Listening:
    """A socket that listens, and the name by which it is called.

    Args:
        socket: which is bound.
        host: the address.
        port: the port.
    """

    socket: socket.socket
    host: str
    port: int

    @property
    def url(self) -> str:
        """Its address, with a slash at the end."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{name}:{self.port}/"

    def guard(
        self, *, framed: bool = False, refused: Callable[[str], Any] = as_error
    ) -> Callable[[Any], Guard]:
        """What wraps an application that listens here; `Guard` says what goes in."""

        def wrapped(app: Any) -> Guard:
            return Guard(app, host=self.host, port=self.port, framed=framed, refused=refused)

        return wrapped


def listen(host: str = "127.0.0.1", port: int = 0) -> Listening:
    """A socket on an address, at a free port where `port` is 0; raises `SteerlabError` where there
    can be none."""
    if host in ("0.0.0.0", "::", ""):
        raise SteerlabError(
            f"{host or 'an empty host'} is every address of this machine, and a page that answers "
            "to any name can be used by any site; give the one address or name by which it shall "
            "be called"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except (OSError, OverflowError) as error:
        made.close()
        free = "" if port == 0 else "; leave --port out for a free one"
        raise SteerlabError(f"cannot listen on {host}, port {port} ({error}){free}") from error
    return Listening(made, host, made.getsockname()[1])


@final
class Server:
    """A server that listens, and the thread that does what it is asked for.

    Args:
        at: where it listens.
        app: what answers, guarded.
        line: whose thread runs the model; it ends with the server.
    """

    def __init__(self, at: Listening, app: Any, line: Line[Any]) -> None:
        self.socket = at.socket
        self.port = at.port
        self.url = at.url
        self.line = line
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=1,
            server_header=False,
            lifespan="off",
        )
        self._server = uvicorn.Server(config)

    def run(self) -> None:
        """Serve until Ctrl-C."""
        self._server.run(sockets=[self.socket])

    def start(self) -> None:
        """Serve in a thread of its own, until `close` or the end of the process."""
        thread = threading.Thread(target=self.run, name="steerlab server", daemon=True)
        thread.start()

    def close(self) -> None:
        """Stop serving; what is being said stops at its next token."""
        self.line.close()
        self._server.should_exit = True


async def read_json(request: Request, *, most: int) -> Any:
    """What a request's body says, as JSON; raises `SteerlabError` for another kind of body, one of
    more than `most` bytes, and one that does not arrive."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise SteerlabError("what is asked has to come as application/json")
    body = bytearray()
    try:
        async with asyncio.timeout(PATIENCE):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise SteerlabError(f"the request has more than {most:,} bytes; give less text")
    except TimeoutError as error:
        raise SteerlabError("the request did not arrive in time; send it again") from error
    except ClientDisconnect as error:
        raise SteerlabError("the request was broken off; send it again") from error
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise SteerlabError("the request holds no JSON; send an object of settings") from error


def post(loop: asyncio.AbstractEventLoop, events: "asyncio.Queue[Any]", event: Any) -> None:
    """Hand an event to the server's thread, which may have ended."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(events.put_nowait, event)
