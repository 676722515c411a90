"""Servers say nothing of clients that send garbage or leave."""

import logging
import socket
import threading
import time

import pytest

from janusflow.utils.http_logs import quiet_about_clients

uvicorn = pytest.importorskip("uvicorn")


async def app(_scope, _receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def test_a_malformed_request_is_answered_and_not_logged(caplog):
    quiet_about_clients()
    quiet_about_clients()
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", http="h11"))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    with caplog.at_level(logging.WARNING):
        thread.start()
        with socket.create_connection(listening.getsockname(), timeout=30) as client:
            client.sendall(b"this is not HTTP\r\n\r\n")
            assert b"400" in client.recv(100)
        logging.getLogger("uvicorn.error").warning("of the server itself")
        server.should_exit = True
        until = time.monotonic() + 30
        while thread.is_alive() and time.monotonic() < until:
            time.sleep(0.01)
    assert [record.message for record in caplog.records] == ["of the server itself"]
