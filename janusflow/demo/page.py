"""The page: tabs around one pipeline, and a gallery of generated images."""

import random
from collections.abc import Callable
from functools import partial

import gradio as gr

from janusflow.demo import jobs, parts, requests
from janusflow.demo.parts import style, theme  # noqa: F401 (for whoever opens the page)
from janusflow.scenes.shapes import COLORS, SHAPES

HINT = "The image that the model expects at each time, from noise (t = 0) to the end (t = 1)."
ENDS = "From noise (t = 0) to the image (t = 1)."
FRAMES = 12  # full rows at both widths
QUESTIONS = [
    "how many shapes are in the picture?", "what color is the star?", "is there a red circle?",
    "what shape is the blue object?", "describe the picture.",
]  # fmt: skip
QUIET = {"show_progress": "hidden", "api_visibility": "private"}


def build(pipe, name: str, about: str, examples: list[str], known: bool = True) -> gr.Blocks:
    """Returns the whole page around one pipeline; one job runs at a time, whichever tab starts it.

    `known` says whether the model is of the scenes world, whose words the page can list.
    """
    with gr.Blocks(title="JanusFlow", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.HTML(_heading(name, about), elem_id="heading")
        shelf = gr.State([], time_to_live=3600)  # (image, caption), the newest first
        with gr.Tabs():
            with gr.Tab("Paint"):
                _paint_tab(pipe, examples, shelf, known)
            with gr.Tab("Compare"):
                _compare_tab(pipe, examples)
            with gr.Tab("Trajectory"):
                _trajectory_tab(pipe, examples)
            with gr.Tab("Ask"):
                _ask_tab(pipe, shelf)
            with gr.Tab("Edit"):
                _edit_tab(pipe, examples, shelf)
    return page


def _heading(name: str, about: str) -> str:
    what = "One model that generates images and answers questions about them."
    return f"<h1>JanusFlow</h1><p>{what} <b>{name}</b>, {about}.</p>"


def _paint_tab(pipe, examples: list[str], shelf: gr.State, known: bool) -> None:
    with gr.Row(equal_height=False, elem_classes="desk"):
        with gr.Column(scale=5, min_width=300):
            prompt = parts.prompt(examples)
            gr.Examples(examples, prompt, label="Examples", elem_id="paint-examples")
            if known:
                gr.HTML(parts.words(list(COLORS), list(SHAPES)))
            with gr.Row():
                quality, count = parts.quality(), parts.count()
            with gr.Row():
                guidance, seed = parts.guidance(), parts.seed()
            with gr.Accordion("More", open=False, elem_id="more"):
                negative = parts.negative()
                with gr.Row():
                    sampler, nfe = parts.sampler(), parts.nfe()
            with gr.Row(elem_classes="deeds"):
                go = gr.Button("Paint", variant="primary", elem_id="paint", scale=3, min_width=100)
                luck = gr.Button("Another seed", elem_id="luck", scale=2, min_width=110)
                halt = gr.Button("Stop", elem_id="stop", scale=1, min_width=60)
        with gr.Column(scale=4, min_width=300, elem_classes="result"):
            shown = parts.canvas("Image", "painted")
            way = gr.HTML(parts.way([], HINT), elem_id="way")
    made = parts.gallery()
    inputs = [prompt, negative, quality, sampler, nfe, guidance, seed, count, shelf]
    outputs = [shown, way, made, shelf]
    deed = jobs.told(partial(jobs.painting, pipe), len(outputs))
    own = [sampler.input, nfe.input]
    chosen = f"() => {requests.OWN!r}"  # in the browser, so that Paint never comes first
    gr.on(own, None, None, quality, js=chosen, **QUIET)
    ways = [
        _job(go.click, deed, inputs, outputs, "paint"),
        _job(prompt.submit, deed, inputs, outputs, None),
        _job(luck.click(_roll, None, seed, **QUIET).then, deed, inputs, outputs, None),
    ]
    halt.click(None, cancels=ways, api_visibility="private")


def _compare_tab(pipe, examples: list[str]) -> None:
    with gr.Row(equal_height=False, elem_classes="desk"):
        with gr.Column(scale=4, min_width=300):
            prompt = parts.prompt(examples)
            with gr.Row():
                left, left_nfe = parts.sampler("euler", "Left sampler"), parts.nfe(8)
            with gr.Row():
                right, right_nfe = parts.sampler("auto", "Right sampler"), parts.nfe(8)
            with gr.Row():
                guidance, seed = parts.guidance(), parts.seed()
            go = gr.Button("Compare on the same noise", variant="primary", elem_id="compare")
        with gr.Column(scale=5, min_width=300, elem_classes="result"):
            with gr.Row():
                a, b = parts.canvas("Left", "left"), parts.canvas("Right", "right")
            said = gr.HTML(
                parts.note("Both samplers start from the same noise."), elem_id="compared"
            )
    inputs, outputs = [prompt, left, left_nfe, right, right_nfe, guidance, seed], [a, b, said]
    deed = jobs.told(partial(jobs.comparing, pipe), len(outputs))
    _job(go.click, deed, inputs, outputs, "compare")
    _job(prompt.submit, deed, inputs, outputs, None)


def _trajectory_tab(pipe, examples: list[str]) -> None:
    with gr.Row(equal_height=False, elem_classes="desk"):
        with gr.Column(scale=4, min_width=300):
            prompt = parts.prompt(examples)
            with gr.Row():
                sampler, nfe = parts.sampler("euler"), parts.nfe(22)
            frames = gr.Slider(2, requests.MAX_FRAMES, FRAMES, step=1, label="Frames", buttons=[])
            with gr.Row():
                guidance, seed = parts.guidance(), parts.seed()
            with gr.Row(elem_classes="deeds"):
                go = gr.Button(
                    "Show the trajectory", variant="primary", elem_id="walk", scale=3, min_width=100
                )
                halt = gr.Button("Stop", scale=1, min_width=60)
        with gr.Column(scale=5, min_width=300, elem_classes="result"):
            shown = gr.HTML(parts.track([], FRAMES, ENDS), elem_id="track")
    inputs = [prompt, sampler, nfe, frames, guidance, seed]
    deed = jobs.told(partial(jobs.walking, pipe))
    ways = [
        _job(go.click, deed, inputs, shown, "trajectory"),
        _job(prompt.submit, deed, inputs, shown, None),
    ]
    halt.click(None, cancels=ways, api_visibility="private")


def _ask_tab(pipe, shelf: gr.State) -> None:
    with gr.Row(equal_height=False, elem_classes="desk"):
        with gr.Column(scale=4, min_width=300):
            image = parts.upload("asked")
            last = gr.Button("Use the last generated image", size="sm", elem_id="last")
        with gr.Column(scale=5, min_width=300):
            talk = gr.Chatbot(
                label="Questions and answers", height=300, elem_id="talk", buttons=[],
                placeholder="Choose an image and ask about it.", sanitize_html=True,
                render_markdown=False,
            )  # fmt: skip
            question = gr.Textbox(
                label="Question", lines=1, max_length=requests.MAX_TEXT, elem_id="question",
                value=QUESTIONS[0],
            )  # fmt: skip
            gr.Examples(QUESTIONS, question, label="Examples", elem_id="ask-examples")
            with gr.Row(elem_classes="deeds"):
                go = gr.Button("Ask", variant="primary", elem_id="ask", scale=3, min_width=100)
                halt = gr.Button("Stop", scale=1, min_width=60)
                new = gr.Button("Clear", elem_id="forget", scale=1, min_width=60)
    last.click(jobs.told(jobs.latest), shelf, image, **QUIET)
    gr.on([new.click, image.change], lambda: [], None, talk, **QUIET)
    inputs, outputs = [image, question, talk], [talk, question]
    deed = jobs.told(partial(jobs.answering, pipe), len(outputs))
    ways = [
        _job(go.click, deed, inputs, outputs, "ask"),
        _job(question.submit, deed, inputs, outputs, None),
    ]
    halt.click(None, cancels=ways, api_visibility="private")


def _edit_tab(pipe, examples: list[str], shelf: gr.State) -> None:
    with gr.Row(equal_height=False, elem_classes="desk"):
        with gr.Column(scale=4, min_width=300):
            image = parts.upload("before")
            last = gr.Button("Use the last generated image", size="sm", elem_id="edit-last")
            prompt = parts.prompt(examples)
            strength = gr.Slider(
                0.05, requests.MAX_STRENGTH, 0.6, step=0.05, label="Strength", buttons=[],
                info="How much may change: near 0 almost nothing, 1 everything.",
            )  # fmt: skip
            with gr.Row():
                guidance, seed = parts.guidance(), parts.seed()
            go = gr.Button("Edit", variant="primary", elem_id="edit")
        with gr.Column(scale=5, min_width=300):
            after = parts.canvas("Edited image", "edited")
            said = gr.HTML(parts.note("The prompt describes the edited image."))
    last.click(jobs.told(jobs.latest), shelf, image, **QUIET)
    inputs, outputs = [image, prompt, strength, guidance, seed], [after, said]
    deed = jobs.told(partial(jobs.editing, pipe), len(outputs))
    _job(go.click, deed, inputs, outputs, "edit")
    _job(prompt.submit, deed, inputs, outputs, None)


def _job(when: Callable, deed: Callable, inputs, outputs, name: str | None):
    """Registers work for the model; all such jobs share one queue."""
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


def _roll() -> int:
    return random.randint(0, requests.MAX_SEED - requests.MAX_COUNT)
