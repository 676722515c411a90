"""Protects the page: checks of Host and Origin, limits of body sizes and of uploads per visitor."""

import time
from collections import defaultdict, deque
from collections.abc import Callable

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.middleware import Middleware

from janusflow.demo.requests import MAX_BYTES
from janusflow.utils.http_guard import Guard, error_body

SMALL = 2**18  # bytes of a body that is no file
FRAME = 2**14  # bytes that a form adds to its file
HOUR = 3600.0  # seconds
EACH = 8 * MAX_BYTES  # bytes of files that a visitor's address may send in an hour
ALL = 64 * MAX_BYTES  # bytes that all of them may send in an hour


def protected(host: str) -> dict:
    """Returns the arguments of the page's FastAPI application."""
    guard = Middleware(
        Guard, host=host, max_body=lambda path: MAX_BYTES + FRAME if _is_upload(path) else SMALL
    )
    # gradio looks up functions by what the request says; what it does not find is not our mistake
    from gradio import route_utils

    missing = (KeyError, IndexError, getattr(route_utils, "FnIndexInferError", KeyError))
    handlers = dict.fromkeys(missing, _unknown)
    return {"middleware": [guard, Middleware(Quota)], "exception_handlers": handlers}


async def _unknown(_request: Request, _error: Exception) -> JSONResponse:
    return JSONResponse(error_body("there is no such function", "not_found_error"), 404)


def _is_upload(path: str) -> bool:
    return path.rstrip("/").endswith("/upload")


class Quota:
    """An ASGI application that limits uploads to `EACH` bytes per address and `ALL` an hour."""

    def __init__(self, app, each: int = EACH, everyone: int = ALL):
        self.app, self.each, self.everyone = app, each, everyone
        self.sent: dict[str, deque[tuple[float, int]]] = defaultdict(deque)

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not _is_upload(scope["path"]):
            return await self.app(scope, receive, send)
        who = (scope.get("client") or ("",))[0]
        self._forget()
        total = sum(size for rows in self.sent.values() for _, size in rows)
        if sum(size for _, size in self.sent[who]) >= self.each or total >= self.everyone:
            told = error_body("too many files were sent; try again in an hour", "rate_limit_error")
            headers = {"retry-after": str(int(HOUR))}
            return await JSONResponse(told, 429, headers)(scope, receive, send)
        await self.app(scope, self._counted(who, receive), send)

    def _forget(self) -> None:
        """Removes records of uploads that are more than an hour old."""
        before = time.monotonic() - HOUR
        for who, rows in list(self.sent.items()):
            while rows and rows[0][0] < before:
                rows.popleft()
            if not rows:
                del self.sent[who]

    def _counted(self, who: str, receive: Callable) -> Callable:
        async def counted() -> dict:
            message = await receive()
            if size := len(message.get("body", b"")):
                self.sent[who].append((time.monotonic(), size))
            return message

        return counted
