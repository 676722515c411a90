"""An ASGI guard for a web application: allowed hosts and origins, an API key, and size limits.

It is plain ASGI, so streams and disconnects pass through unchanged.
"""

import asyncio
import ipaddress
import json
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import urlsplit

from janusflow.utils.text import printable

LOCAL = ("localhost", "127.0.0.1", "::1")
EVERYWHERE = ("0.0.0.0", "::", "")
SLOWEST = 30.0  # seconds between two parts of a body


class Denied(Exception):
    """A request that is answered with an error before the application sees it."""

    def __init__(self, status: int, message: str, code: str, headers: Iterable = ()):
        super().__init__(message)
        self.status, self.code, self.headers = status, code, list(headers)


class Guard:
    """An ASGI application that checks each request before it reaches the wrapped one.

    - `host` is the address the server listens on. As the Host header it accepts its own name, the
      names of this machine and `hosts`; when listening on all addresses, also numeric addresses.
      Any other name may belong to an attacker who points it here (DNS rebinding).
    - An Origin header must equal the Host or be one of `origins`.
    - With `key`, requests need `Authorization: Bearer KEY`, except to /health.
    - `max_body(path)` is the limit of a request body in bytes; `budget` is the limit of all bodies
      that are held at once.
    """

    def __init__(
        self,
        app,
        host: str = "127.0.0.1",
        hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
        key: str | None = None,
        max_body: Callable[[str], int] = lambda _: 2**20,
        budget: int = 2**28,
    ):
        self.app, self.key = app, key
        self.names = {*LOCAL, *(name.lower() for name in hosts)}
        self.numbers = host in EVERYWHERE
        self.names |= {socket.gethostname().lower()} if self.numbers else {host.lower()}
        self.origins = {origin.lower().rstrip("/") for origin in origins}
        self.max_body, self.budget, self.held = max_body, budget, 0

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = {name.lower(): value for name, value in scope["headers"]}
        body = _Body(self, scope, headers, receive)
        try:
            self._check(scope, headers)
            body.check_length()
            await self.app(scope, body.receive, body.watch(send))
        except Denied as denied:
            await body.deny(send, denied)
        finally:
            self.held -= body.size

    def _check(self, scope, headers: dict[bytes, bytes]) -> None:
        asked = headers.get(b"host", b"").decode("latin-1").lower()
        if not self._knows(asked):
            raise Denied(
                403,
                f"the request names the host {printable(asked, 80)!r}, which is none of this "
                "server's names; use its own address, or allow the name by serve --allow-host",
                "wrong_host",
            )
        origin = headers.get(b"origin")
        if origin is not None and not self._same(origin.decode("latin-1").lower(), asked):
            shown = printable(origin.decode("latin-1"), 80)
            raise Denied(
                403,
                f"pages of {shown!r} may not send requests to this server; allow them by serve "
                f"--allow-origin {shown}",
                "wrong_origin",
            )
        if self.key and scope["method"] != "OPTIONS" and scope["path"] != "/health":
            self._check_key(headers.get(b"authorization", b""))

    def _knows(self, asked: str) -> bool:
        try:
            name = urlsplit(f"//{asked}").hostname or ""
        except ValueError:
            return False
        return name in self.names or (self.numbers and _is_address(name))

    def _same(self, origin: str, asked: str) -> bool:
        return origin.rstrip("/") in self.origins or origin in (
            f"http://{asked}",
            f"https://{asked}",
        )

    def _check_key(self, given: bytes) -> None:
        kind, _, key = given.partition(b" ")
        right = secrets.compare_digest(key.strip(), self.key.encode())
        if kind.lower() != b"bearer" or not right:
            raise Denied(
                401,
                "the API key is missing or wrong; send it as 'Authorization: Bearer KEY'",
                "invalid_api_key",
                [(b"www-authenticate", b"Bearer")],
            )


class _Body:
    """Counts one request's body on its way to the application."""

    def __init__(self, guard: Guard, scope, headers: dict[bytes, bytes], receive: Callable):
        self.guard, self._receive, self.headers = guard, receive, headers
        self.most = guard.max_body(scope["path"])
        self.size, self.complete, self.answered = 0, False, False
        self.denied: Denied | None = None

    def check_length(self) -> None:
        length = self.headers.get(b"content-length", b"0")
        if not length.isdigit():
            raise Denied(
                400,
                "Content-Length is not a number; send the length of the body in bytes",
                "invalid_request",
            )
        self._hold(int(length))

    def _hold(self, size: int) -> None:
        if size > self.most:
            raise Denied(
                413, f"the body is larger than {self.most:,} bytes; send less", "body_too_large"
            )
        if self.guard.held - self.size + size > self.guard.budget:
            raise Denied(
                429,
                "other requests fill the memory for bodies; try again in a few seconds",
                "busy",
                [(b"retry-after", b"5")],
            )

    async def receive(self) -> dict:
        """Returns the next part, or raises `Denied`, which `watch` remembers if the application
        hides it.
        """
        try:
            return await self._next()
        except Denied as denied:
            self.denied = denied
            raise

    async def _next(self) -> dict:
        if self.complete:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), SLOWEST)
        except asyncio.TimeoutError:
            raise Denied(408, "the body did not come in time; send it again", "timeout") from None
        if message["type"] != "http.request":
            return message
        size = len(message.get("body", b""))
        self._hold(self.size + size)
        self.size += size
        self.guard.held += size
        self.complete = not message.get("more_body", False)
        return message

    def watch(self, send: Callable) -> Callable[[dict], Awaitable]:
        async def sent(message: dict) -> None:
            if self.denied:
                return await self.deny(send, self.denied)
            self.answered = True
            await send(message)

        return sent

    async def deny(self, send: Callable, denied: Denied) -> None:
        """Sends the error once, unless the application has answered already."""
        if not self.answered:
            self.answered = True
            await _answer(send, denied)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def error_body(message: str, kind: str, param: str | None = None, code: str | None = None) -> dict:
    """Returns an error as JSON in the format that OpenAI's clients read."""
    told = dict(message=printable(message), type=kind, param=param, code=code)
    return {"error": told}


async def _answer(send: Callable, denied: Denied) -> None:
    kind = "authentication_error" if denied.status == 401 else "invalid_request_error"
    content = json.dumps(error_body(str(denied), kind, code=denied.code)).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close"), *denied.headers]
    headers.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": denied.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
