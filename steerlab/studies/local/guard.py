"""Who may ask: programs of this machine, and pages of the server itself, by the name under which it
listens."""

import ipaddress
import json
from collections.abc import Awaitable, Callable
from typing import Any

HEADERS = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors {}"
)


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def as_error(message: str) -> dict[str, Any]:
    """A message as the explorer's page reads it."""
    return {"error": message}


class Guard:
    """Passes on what is asked under the server's own name, and refuses everything else.

    A site elsewhere can have its own name point at this machine (DNS rebinding): its requests
    arrive with that name as Host. A page elsewhere can send a request here: it arrives with that
    page as Origin. Both are refused before anything is read.

    Args:
        app: what is guarded.
        host: the name that it listens under.
        port: its port.
        framed: whether pages of this machine may show it in a frame.
        refused: what a refusal's sentence is put into, as JSON.
    """

    def __init__(
        self,
        app: Any,
        *,
        host: str,
        port: int,
        framed: bool = False,
        refused: Callable[[str], Any] = as_error,
    ) -> None:
        self.app = app
        self.refused = refused
        names = [f"[{host}]" if ":" in host else host]
        if is_loopback(host):
            names += ["localhost", "127.0.0.1"]
        self.hosts = {f"{name}:{port}" for name in names}
        if port == 80:
            self.hosts |= set(names)
        frames = "'self' http://localhost:* http://127.0.0.1:*" if framed else "'none'"
        self.headers = {**HEADERS, "content-security-policy": _POLICY.format(frames)}
        if framed:  # a frame of another port is another origin
            self.headers["cross-origin-resource-policy"] = "same-site"

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            return
        said: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            said.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        if refusal := self.refusal(said):
            await self._refuse(send, refusal)
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.encode(), value.encode()) for name, value in self.headers.items()]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        await self.app(scope, receive, with_headers)

    def refusal(self, headers: dict[str, list[str]]) -> str:
        """Why a request with these headers is refused; empty where it is not."""
        hosts = headers.get("host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return (
                "this server answers only under its own name, "
                f"{' or '.join(sorted(self.hosts))}; ask it there, or begin it with --host"
            )
        for origin in headers.get("origin", []):
            if origin.lower() != f"http://{hosts[0].lower()}":
                return "a page of another site asked; only the server's own page may"
        if headers.get("sec-fetch-site", ["none"])[0] == "cross-site" and (
            headers.get("sec-fetch-mode", [""])[0] != "navigate"
        ):
            return "a page of another site asked; only the server's own page may"
        return ""

    async def _refuse(self, send: Callable[[Any], Awaitable[None]], message: str) -> None:
        body = json.dumps(self.refused(message)).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": body})
