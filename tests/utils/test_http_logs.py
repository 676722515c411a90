"""Servers say nothing of clients that send garbage or leave."""

import logging
import socket
import threading

import pytest

from janusflow.utils.http_logs import quiet_about_clients

uvicorn = pytest.importorskip("uvicorn")


async def app(_scope, _receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


class Kept(logging.Handler):
    def __init__(self):
        super().__init__()
        self.said = []

    def emit(self, record):
        self.said.append(record.getMessage())


def test_a_malformed_request_is_answered_and_not_logged(monkeypatch):
    quiet_about_clients()
    quiet_about_clients()
    log, kept = logging.getLogger("uvicorn.error"), Kept()
    monkeypatch.setattr(log, "handlers", [kept])  # whatever other servers have set
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, log_level="warning", lifespan="off", http="h11")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    with socket.create_connection(listening.getsockname(), timeout=30) as client:
        client.sendall(b"this is not HTTP\r\n\r\n")
        assert b"400" in client.recv(100)
    log.warning("of the server itself")
    server.should_exit = True
    thread.join(30)
    assert kept.said == ["of the server itself"]
