"""The page: three tabs and a shelf with what was made."""

from __future__ import annotations

import base64
import io
import logging
import random
from collections.abc import Callable, Iterator
from functools import partial, wraps
from pathlib import Path

import gradio as gr
from PIL import Image

from janusflow.demo import requests, worker
from janusflow.demo.requests import Refused, Wish

HINT = "What the model expects on its way from noise, t = 0, to the picture, t = 1."
SHELF = 12  # pictures kept for a visitor
QUESTIONS = ["how many shapes are there?", "what colour is the circle?", "describe the picture"]
log = logging.getLogger("janusflow.demo")


def build(pipe, name: str, about: str, examples: list[str]) -> gr.Blocks:
    """All that a visitor sees, around one pipeline; one job at a time, whichever tab asks."""
    with gr.Blocks(title="JanusFlow", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.HTML(_heading(name, about), elem_id="heading")
        shelf = gr.State([], time_to_live=3600)  # (picture, caption), the newest first
        with gr.Tabs():
            with gr.Tab("Paint"):
                _paint_tab(pipe, examples, shelf)
            with gr.Tab("Compare"):
                _compare_tab(pipe, examples)
            with gr.Tab("Ask"):
                _ask_tab(pipe, shelf)
    return page


def _heading(name: str, about: str) -> str:
    return f"<h1>JanusFlow</h1><p>One model that paints and answers. <b>{name}</b>, {about}.</p>"


def _paint_tab(pipe, examples: list[str], shelf: gr.State) -> None:
    with gr.Row(equal_height=False, elem_classes="desk"):
        with gr.Column(scale=5, min_width=300):
            prompt = _prompt(examples)
            gr.Examples(examples, prompt, label="For a start", elem_id="paint-examples")
            with gr.Row():
                sampler = gr.Dropdown(requests.samplers(), value="auto", label="Sampler")
                calls = _calls()
            with gr.Row():
                guidance, seed = _guidance(), _seed()
            with gr.Row(elem_classes="deeds"):
                go = gr.Button("Paint", variant="primary", elem_id="paint", scale=3, min_width=100)
                luck = gr.Button("Another seed", elem_id="luck", scale=2, min_width=110)
                halt = gr.Button("Stop", elem_id="stop", scale=1, min_width=60)
        with gr.Column(scale=4, min_width=300):
            shown = _canvas("Picture", "painted")
            way = gr.HTML(_way([], HINT), elem_id="way")
    made = _gallery()
    settings = [prompt, sampler, calls, guidance, seed]
    outputs = [shown, way, made, shelf]
    deed = _told(partial(_painting, pipe))
    ways = [
        _job(go.click, deed, [*settings, shelf], outputs, "paint"),
        _job(prompt.submit, deed, [*settings, shelf], outputs, None),
        _job(luck.click(_roll, None, seed, **QUIET).then, deed, [*settings, shelf], outputs, None),
    ]
    halt.click(None, cancels=ways, api_visibility="private")


def _compare_tab(pipe, examples: list[str]) -> None:
    names = requests.samplers()
    with gr.Row(equal_height=False, elem_classes="desk"):
        with gr.Column(scale=4, min_width=300):
            prompt = _prompt(examples)
            with gr.Row():
                left = gr.Dropdown(names, value="euler", label="Left")
                left_calls = _calls(8, "Its calls")
            with gr.Row():
                right = gr.Dropdown(names, value="auto", label="Right")
                right_calls = _calls(8, "Its calls")
            with gr.Row():
                guidance, seed = _guidance(), _seed()
            go = gr.Button("Compare on the same noise", variant="primary", elem_id="compare")
        with gr.Column(scale=5, min_width=300):
            with gr.Row():
                a, b = _canvas("Left", "left"), _canvas("Right", "right")
            said = gr.HTML(_note("Both start from the same noise."), elem_id="compared")
    settings = [prompt, left, left_calls, right, right_calls, guidance, seed]
    deed = _told(partial(_comparing, pipe))
    _job(go.click, deed, settings, [a, b, said], "compare")


def _ask_tab(pipe, shelf: gr.State) -> None:
    with gr.Row(equal_height=False, elem_classes="desk"):
        with gr.Column(scale=4, min_width=300):
            image = _guarded(
                gr.Image(
                    label="Picture",
                    type="filepath",
                    image_mode=None,
                    sources=["upload", "clipboard"],
                    height=300,
                    buttons=[],
                    elem_id="asked",
                )
            )
            last = gr.Button("Take the picture painted last", size="sm", elem_id="last")
        with gr.Column(scale=5, min_width=300):
            question = gr.Textbox(
                label="Question",
                max_length=requests.MAX_TEXT,
                elem_id="question",
                value=QUESTIONS[0],
            )
            gr.Examples(QUESTIONS, question, label="For a start", elem_id="ask-examples")
            with gr.Row(elem_classes="deeds"):
                go = gr.Button("Ask", variant="primary", elem_id="ask", scale=3, min_width=100)
                halt = gr.Button("Stop", scale=1, min_width=60)
            said = gr.Textbox(label="Answer", interactive=False, lines=3, elem_id="answer")
    last.click(_told(_latest), shelf, image, **QUIET)
    deed = _told(partial(_answering, pipe))
    ways = [
        _job(go.click, deed, [image, question], said, "ask"),
        _job(question.submit, deed, [image, question], said, None),
    ]
    halt.click(None, cancels=ways, api_visibility="private")


QUIET = {"show_progress": "hidden", "api_visibility": "private"}


def _job(when: Callable, deed: Callable, inputs, outputs, name: str | None):
    """Work for the model: all such jobs wait in one line."""
    return when(
        deed,
        inputs,
        outputs,
        concurrency_limit=1,
        concurrency_id="model",
        show_progress="minimal",
        api_name=name,
        api_visibility="public" if name else "private",
    )


def _painting(pipe, prompt, sampler, calls, guidance, seed, shelf) -> Iterator[tuple]:
    wish = Wish(prompt=prompt, sampler=sampler, calls=calls, guidance=guidance, seed=seed)
    seen = []
    yield gr.skip(), _way([], "Painting ..."), gr.skip(), gr.skip()
    for look in worker.paint(pipe, wish):
        if look is None:
            yield (gr.skip(),) * 4
            continue
        seen.append(look)
        done = look.t >= 1
        note = _spent(look, wish) if done else f"t = {look.t:.2f}, on its way ..."
        if not done:
            yield look.image, _way(seen, note), gr.skip(), gr.skip()
    final = _signed(look, wish)
    shelf = [(final, f"{wish.prompt} · seed {wish.seed}"), *shelf][:SHELF]
    yield final, _way(seen, note), gr.update(value=shelf, visible=True), shelf


def _comparing(pipe, prompt, left, left_calls, right, right_calls, guidance, seed):
    shared = {"prompt": prompt, "guidance": guidance, "seed": seed}
    pair = [
        Wish(sampler=left, calls=left_calls, **shared),
        Wish(sampler=right, calls=right_calls, **shared),
    ]
    looks = [None, None]
    for i, wish in enumerate(pair):
        for look in worker.paint(pipe, wish):
            looks[i] = look or looks[i]
            yield *(one and one.image for one in looks), gr.skip()
    a, b = looks
    images = [_signed(look, wish) for look, wish in zip(looks, pair, strict=True)]
    note = (
        f"Left, {left}: {_spent(a, pair[0])}. Right, {right}: {_spent(b, pair[1])}. "
        f"The pictures differ by {worker.apart(a.image, b.image):.1f} of 255 grey levels."
    )
    yield *images, _note(note)


def _latest(shelf: list) -> Iterator[Image.Image]:
    if not shelf:
        raise Refused("Nothing is painted yet; please paint something first.")
    yield shelf[0][0]


def _answering(pipe, path, question) -> Iterator[str]:
    image = requests.picture(path)
    yield "..."
    yield from worker.answer(pipe, image, question)


def _told(deed: Callable) -> Callable:
    """What a visitor may know of an error: our own sentences. The rest goes to the log."""

    @wraps(deed)
    def safe(*args):
        try:
            yield from deed(*args)
        except Refused as error:
            raise gr.Error(str(error), duration=8, print_exception=False) from None
        except Exception:
            log.exception("a request failed")
            raise gr.Error(
                "This did not work. Please try other settings.", duration=8, print_exception=False
            ) from None

    return safe


def _guarded(image: gr.Image) -> gr.Image:
    """An upload that takes only files sent to this page: no addresses, no embedded data.

    gradio has checked by then that the path lies in its folder of uploads; it would also fetch
    addresses, and open files of any size itself.
    """

    async def keep(path):
        if str(path).lower().startswith(("http:", "https:")):
            raise gr.Error("Please send the picture itself.", print_exception=False)
        return str(path)

    image.async_move_resource_to_block_cache = keep
    image.preprocess = lambda payload: payload and payload.path
    return image


def _prompt(examples: list[str]) -> gr.Textbox:
    return gr.Textbox(
        label="Prompt", value=examples[0], lines=2, max_lines=4, max_length=requests.MAX_TEXT,
        submit_btn=False, elem_classes="prompt",
    )  # fmt: skip


def _calls(value: int = 16, label: str = "Calls") -> gr.Slider:
    return gr.Slider(2, requests.MAX_CALLS, value, step=1, label=label, buttons=[])


def _guidance() -> gr.Slider:
    return gr.Slider(0, requests.MAX_GUIDANCE, 2, step=0.1, label="Guidance", buttons=[])


def _seed() -> gr.Number:
    return gr.Number(0, label="Seed", precision=0, minimum=0, maximum=requests.MAX_SEED)


def _canvas(label: str, name: str) -> gr.Image:
    return gr.Image(
        label=label, format="png", interactive=False, buttons=["download"], elem_id=name,
        elem_classes="canvas", show_label=False, alt_text=label,
    )  # fmt: skip


def _gallery() -> gr.Gallery:
    return gr.Gallery(
        label="Made here", columns=6, height="auto", format="png", interactive=False,
        object_fit="contain", buttons=["download"], elem_id="shelf", visible=False,
    )  # fmt: skip


def _roll() -> int:
    return random.randint(0, requests.MAX_SEED)


def _signed(look: worker.Look, wish: Wish) -> Image.Image:
    """The picture with its story, which a PNG keeps as text."""
    image = look.image.copy()
    story = {"prompt": wish.prompt, "sampler": wish.sampler, "calls": look.calls}
    story |= {"guidance": wish.guidance, "seed": wish.seed}
    image.info = {key: str(value) for key, value in story.items()}
    return image


def _spent(look: worker.Look, wish: Wish) -> str:
    own = wish.solver.cost(wish.steps)
    twice = f", two for each of the sampler's {own}" if look.calls == 2 * own else ""
    return f"{look.calls} network calls{twice}"


def _note(text: str) -> str:
    return f'<p class="note">{text}</p>'


def _way(looks: list[worker.Look], note: str) -> str:
    """Small pictures along t with a note below; only what this page made goes in."""
    frames = "".join(
        f'<figure><img alt="at t = {k.t:.2f}" src="{_data(k.image)}">'
        f"<figcaption>{k.t:.2f}</figcaption></figure>"
        for k in looks
    )
    empty = "<figure><div></div><figcaption>&nbsp;</figcaption></figure>"
    return f'<div class="way">{frames}{empty * (worker.LOOKS + 1 - len(looks))}</div>{_note(note)}'


def _data(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((96, 96))
    file = io.BytesIO()
    small.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def style() -> str:
    return (Path(__file__).parent / "page.css").read_text(encoding="utf-8")


def theme() -> gr.themes.Base:
    """Paper and ink, one accent; fonts of the machine, so that no other server is asked."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]
    return gr.themes.Base(
        primary_hue="teal", neutral_hue="stone", radius_size="md", font=fonts,
        font_mono=["ui-monospace", "monospace"],
    ).set(
        body_text_color_subdued="#6b665e", body_text_color_subdued_dark="#a8a39a",
        color_accent="#1f5f5b", block_border_color="transparent",
        border_color_primary="#e4dfd6", border_color_primary_dark="#3a3733",
        button_secondary_background_fill="#efebe3", button_secondary_background_fill_dark="#2c2a27",
        button_secondary_background_fill_hover="#e6e1d7", button_large_text_weight="500",
        body_background_fill="#faf8f4", body_background_fill_dark="#191816",
        block_border_width="0px", block_background_fill="transparent",
        block_background_fill_dark="transparent", block_shadow="none",
        block_label_background_fill="transparent", block_label_border_width="0px",
        button_primary_background_fill="#1f5f5b", button_primary_background_fill_hover="#174a47",
        button_primary_text_color="white", slider_color="#1f5f5b",
        input_background_fill="white", input_background_fill_dark="#24221f",
        input_border_color="#e4dfd6", input_border_color_dark="#3a3733",
    )  # fmt: skip
