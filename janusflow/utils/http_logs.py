"""What a server says of clients that speak no HTTP or leave while it answers: nothing."""

import logging

PROTOCOLS = ("h11_impl", "httptools_impl", "websockets_impl", "wsproto_impl")  # of uvicorn


class NotOfClients(logging.Filter):
    """Drops uvicorn's lines about malformed requests and broken connections."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if type(error).__name__ in ("LocalProtocolError", "RemoteProtocolError"):
            return False
        return record.module not in PROTOCOLS or record.levelno >= logging.ERROR


def quiet_about_clients() -> None:
    """Adds the filter to uvicorn's logger, once."""
    log = logging.getLogger("uvicorn.error")
    if not any(isinstance(one, NotOfClients) for one in log.filters):
        log.addFilter(NotOfClients())
