"""A program that asks the demo page, and what it asks."""

from gradio_client import Client

ASKED = dict(
    prompt="a red circle", negative_prompt="", quality="own", sampler="euler", nfe=3, guidance=2.0,
    seed=0, count=1,
)  # fmt: skip


def client(address):
    waits = {"timeout": 120}  # seconds; httpx's own 5 are short where ten ask one busy core
    return Client(address, verbose=False, analytics_enabled=False, httpx_kwargs=waits)
