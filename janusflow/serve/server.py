"""Serves the application at an address."""

import re
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from types import FrameType

from janusflow.serve.worker import Worker
from janusflow.utils.http_guard import LOCAL, Guard
from janusflow.utils.http_logs import quiet_about_clients
from janusflow.utils.stop_signals import HANGUP, handled

MEGABYTE = 2**20
HOST = re.compile(r"[\w.-]+|\[?[0-9a-fA-F:.]*:[0-9a-fA-F:.]*\]?")  # a name, or a number of IPv6
PLACE = re.compile(r"([\w.-]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?")


def guarded(
    app,
    host: str = "127.0.0.1",
    hosts: Sequence[str] = (),
    origins: Sequence[str] = (),
    key: str | None = None,
    max_body: int = 16 * MEGABYTE,
) -> Guard:
    """Returns the application behind the checks of Host, Origin, key and size.

    Raises ValueError for a host or origin that no request can name.
    """
    check_names(hosts, origins)
    origins = [origin.lower().rstrip("/") for origin in origins]
    if origins:
        from fastapi.middleware.cors import CORSMiddleware

        app = CORSMiddleware(app, list(origins), allow_methods=["*"], allow_headers=["*"])
    return Guard(app, host, hosts, origins, key, max_body=lambda _: max_body, budget=8 * max_body)


def start(pipe, name: str, host: str, port: int, places: int, **checks) -> None:
    """Listens until interrupted; `checks` are the arguments of `guarded`.

    Raises ImportError without the extra `serve`, and OSError if the port is taken.
    """
    check_installed()
    import uvicorn

    from janusflow.serve.app import create_app

    listening = listen(host, port)
    made = create_app(pipe, name, places)
    app = guarded(made, host, **checks)
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{listening.getsockname()[1]}/v1", flush=True)
    if host not in LOCAL and not checks.get("key"):
        print("janusflow: others can reach this server, and it asks for no key", file=sys.stderr)
    quiet_about_clients()
    settings = dict(log_level="warning", server_header=False, timeout_graceful_shutdown=5)
    server = uvicorn.Server(uvicorn.Config(app, **settings))
    server.handle_exit = stopping(server.handle_exit, made.state.worker)
    if HANGUP in handled():
        signal.signal(HANGUP, once(server.handle_exit, signal.getsignal(HANGUP)))
    server.run(sockets=[listening])


def stopping(handle: Callable, worker: Worker) -> Callable:
    """Returns uvicorn's signal handler, which also ends the requests that wait."""

    def handle_exit(number: int, frame: FrameType | None) -> None:
        worker.stopping = True
        handle(number, frame)

    return handle_exit


def once(handle: Callable, after: Callable) -> Callable:
    """Returns a signal handler that calls `handle` for the first signal and leaves `after` in its
    place, which uvicorn reaches by raising the signal again once it has stopped.
    """

    def handle_first(number: int, frame: FrameType | None) -> None:
        signal.signal(number, after)
        handle(number, frame)

    return handle_first


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket at the address. Raises OSError, as a sentence, if it cannot be opened."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
        made.listen()  # a client may connect as soon as the address is printed
    except (OSError, ValueError) as error:  # ValueError: what is no host's name at all
        made.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise OSError(
            f"{host}:{port} cannot be listened at ({reason}); choose another port or host"
        ) from error
    return made


def check_names(hosts: Sequence[str], origins: Sequence[str]) -> None:
    """Raises ValueError for a host that is no name, and for an origin of another form than
    https://example.org, which no request would match.
    """
    for host in hosts:
        if not HOST.fullmatch(host):
            raise ValueError(
                f"the allowed host is {host!r:.80}; expected one name such as example.org, without "
                "scheme, port or *"
            )
    for origin in origins:
        scheme, _, rest = origin.rstrip("/").partition("://")
        if scheme.lower() not in ("http", "https") or not PLACE.fullmatch(rest):
            raise ValueError(
                f"the allowed origin is {origin!r:.80}; expected one such as https://example.org "
                "or http://localhost:3000"
            )


def check_installed() -> None:
    """Raises ImportError that says what to install if something is missing."""
    for module in ("fastapi", "uvicorn", "multipart"):
        if find_spec(module) is None:
            raise ImportError(f"the server needs {module}; run pip install 'janusflow[serve]'")
