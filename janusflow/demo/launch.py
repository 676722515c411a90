"""Serves the page at an address of this machine."""

import os
import tempfile
from importlib.metadata import version

from janusflow.utils.extras import needed
from janusflow.utils.packaged import DEFAULT

QUEUE = 20  # jobs that may wait
SESSIONS = 64  # visitors whose shelf is kept
PROMPTS = {
    DEFAULT: ["a yellow star and a purple ring", "three orange circles", "a green heart"],
    "janusflow/emoji": ["a red heart", "grinning cat with smiling eyes", "a blue car"],
}
ANY = ["a fox in the snow at dawn", "a bowl of lemons, oil painting", "a quiet harbour"]


def start(pipe, name: str, host: str = "127.0.0.1", port: int = 0, wait: bool = True):
    """Serves the page until interrupted; with `wait=False` it returns (blocks, address) at once.

    Temporary files are kept in their own folder, which is cleaned regularly and removed at the end.
    Nothing is sent to other servers: no analytics, no fonts, no share link.
    """
    folder = tempfile.TemporaryDirectory(prefix="janusflow-demo-")
    os.environ["GRADIO_TEMP_DIR"] = folder.name  # read when components are made
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    with needed("demo", "the page"):
        found = version("gradio")
    if int(found.split(".")[0]) < 6:
        raise ImportError(f"the page needs gradio 6 or newer, not {found}; pip install -U gradio")
    from janusflow.demo import page
    from janusflow.demo.protection import protected
    from janusflow.demo.requests import MAX_BYTES
    from janusflow.utils.http_logs import quiet_about_clients

    quiet_about_clients()

    blocks = page.build(pipe, name, _about(pipe), PROMPTS.get(name, ANY), known=name == DEFAULT)
    blocks.queue(max_size=QUEUE, api_open=False)
    _, address, _ = blocks.launch(
        server_name=host,
        server_port=port or None,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        show_error=False,
        max_file_size=MAX_BYTES,
        allowed_paths=[],
        state_session_capacity=SESSIONS,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        run_history=False,
        footer_links=[],
        theme=page.theme(),
        css=page.style(),
        app_kwargs=protected(host),
    )
    blocks.files = folder  # lives as long as the page
    if wait:
        print(address, flush=True)
        try:
            blocks.block_thread()
        finally:
            folder.cleanup()
    return blocks, address


def _about(pipe) -> str:
    count = sum(p.numel() for p in pipe.model.parameters())
    size = f"{count / 1e9:.1f} billion" if count >= 1e9 else f"{count / 1e6:.1f} million"
    return f"{size} parameters, {pipe.default_size} pixels, on {pipe.device}"
