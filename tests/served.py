"""A server of a pipeline in a thread."""

import socket
import threading
import time

import uvicorn

from janusflow.serve.app import create_app
from janusflow.serve.server import guarded


class Served:
    def __init__(self, pipe, name, places=4, **checks):
        app = create_app(pipe, name, places)
        self.worker = app.state.worker
        self.server = uvicorn.Server(uvicorn.Config(guarded(app, **checks), log_level="critical"))
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        self.thread = threading.Thread(
            target=self.server.run, kwargs=dict(sockets=[listening]), daemon=True
        )
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def client(self, **options):
        import openai

        options = dict(api_key="none", max_retries=0, timeout=60) | options
        return openai.OpenAI(base_url=f"{self.url}/v1", **options)

    def stop(self):
        self.server.should_exit = True
        self.thread.join(20)
