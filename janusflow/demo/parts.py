"""The components of the page's tabs, and the notes between them."""

import base64
import html
import io
from pathlib import Path

import gradio as gr
from PIL import Image

from janusflow.demo import actions, requests
from janusflow.demo.requests import GenerationRequest


def prompt(examples: list[str]) -> gr.Textbox:
    """Returns a text box of one line, so that Enter starts the job; longer texts wrap."""
    return gr.Textbox(
        label="Prompt", value=examples[0], lines=1, max_lines=4, max_length=requests.MAX_TEXT,
        submit_btn=False, elem_classes="prompt",
    )  # fmt: skip


def negative() -> gr.Textbox:
    return gr.Textbox(
        label="Negative prompt", lines=1, max_length=requests.MAX_TEXT, placeholder="none"
    )


def quality() -> gr.Dropdown:
    """Returns a menu of the presets, and "own" for the sampler and evaluations chosen below it."""
    names = [(name.capitalize(), name) for name in ("fast", "draft", "high", "exact")]
    own = ("Custom: the sampler under More", requests.OWN)
    return gr.Dropdown([*names, own], value="fast", label="Quality", elem_id="quality")


def sampler(value: str = "auto", label: str = "Sampler") -> gr.Dropdown:
    return gr.Dropdown(requests.samplers(), value=value, label=label)


def nfe(value: int = 16) -> gr.Slider:
    return gr.Slider(2, requests.MAX_NFE, value, step=1, label="Guided evaluations", buttons=[])


def guidance() -> gr.Slider:
    return gr.Slider(0, requests.MAX_GUIDANCE, 2, step=0.1, label="Guidance scale", buttons=[])


def seed() -> gr.Number:
    return gr.Number(0, label="Seed", precision=0, minimum=0, maximum=requests.MAX_SEED)


def count() -> gr.Slider:
    return gr.Slider(1, requests.MAX_COUNT, 1, step=1, label="Images", buttons=[])


def canvas(label: str, name: str) -> gr.Image:
    return gr.Image(
        label=label, format="png", interactive=False, buttons=["download"], elem_id=name,
        elem_classes="canvas", show_label=False, alt_text=label,
    )  # fmt: skip


def gallery() -> gr.Gallery:
    return gr.Gallery(
        label="Generated images", columns=6, height="auto", format="png", interactive=False,
        object_fit="contain", buttons=["download"], elem_id="shelf", visible=False,
    )  # fmt: skip


def upload(name: str) -> gr.Image:
    return upload_only(
        gr.Image(
            label="Image", type="filepath", image_mode=None, sources=["upload", "clipboard"],
            height=300, buttons=[], elem_id=name, elem_classes="sent",
        )
    )  # fmt: skip


def upload_only(image: gr.Image) -> gr.Image:
    """Returns an image input that accepts only files uploaded to this page.

    gradio has checked by then that the path is in its upload folder; by itself it would also
    download addresses, and open files of any size.
    """

    async def keep(path):
        if str(path).lower().startswith(("http:", "https:")):
            raise gr.Error("Please send the image itself.", print_exception=False)
        return str(path)

    image.async_move_resource_to_block_cache = keep
    image.preprocess = lambda payload: payload and payload.path
    return image


def note(text: str) -> str:
    """Returns a line below an image; visitors' text is shown as plain text."""
    return f'<p class="note">{html.escape(text)}</p>'


def words(colors: list[str], shapes: list[str]) -> str:
    """Returns a collapsed list of the words that a scenes model knows."""
    known = f"Colors: {', '.join(colors)}. Shapes: {', '.join(shapes)}. Up to four shapes."
    title = "<summary>Words that the model knows</summary>"
    return f'<details class="note">{title}{html.escape(known)}</details>'


def way(looks: list[actions.Look], text: str) -> str:
    """Returns small images along t with a note below; only images made by this page are allowed."""
    frames = "".join(
        f'<figure><img alt="at t = {look.t:.2f}" src="{_data(look.image)}">'
        f"<figcaption>{look.t:.2f}</figcaption></figure>"
        for look in looks
    )
    empty = "<figure><div></div><figcaption>&nbsp;</figcaption></figure>"
    missing = 0 if looks and looks[-1].t == 1 else actions.LOOKS + 1 - len(looks)
    return f'<div class="way">{frames}{empty * missing}</div>{note(text)}'


def track(frames: list[actions.Frame], wanted: int, text: str, moving: bool = False) -> str:
    """Returns a trajectory: each time's state above its expected image.

    With `moving` the expected images are also shown as a GIF. Only images made by this page are
    allowed.
    """
    cells = "".join(
        f'<figure><img alt="state at t = {f.t:.2f}" src="{_data(f.state)}">'
        f'<img alt="expected image at t = {f.t:.2f}" src="{_data(f.expected)}">'
        f"<figcaption>t = {f.t:.2f}</figcaption></figure>"
        for f in frames
    )
    empty = "<figure><div></div><div></div><figcaption>&nbsp;</figcaption></figure>"
    rows = f'<div class="track">{cells}{empty * max(0, wanted - len(frames))}</div>'
    legend = "Above: the state x at time t. Below: the image that the model expects from it."
    tail = _gif([f.expected for f in frames]) if moving else ""
    return f"{note(text)}{rows}{note(legend)}{tail}"


def _gif(images: list[Image.Image]) -> str:
    """Returns an animation and a link to save it."""
    frames = [image.resize((4 * 96, 4 * 96 * image.height // image.width)) for image in images]
    pauses, file = [160] * (len(frames) - 1) + [1200], io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=pauses, loop=0)
    source = f"data:image/gif;base64,{base64.b64encode(file.getvalue()).decode()}"
    return (
        f'<img class="moving" alt="the trajectory as a moving image" src="{source}">'
        f'<p class="note"><a download="trajectory.gif" href="{source}">Save the GIF</a></p>'
    )


def _data(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((96, 96))
    file = io.BytesIO()
    small.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def signed(look: actions.Look, request: GenerationRequest, seed: int) -> Image.Image:
    """Returns the image with its metadata, which a PNG stores as text."""
    image = look.image.copy()
    story = {"prompt": request.prompt, "negative_prompt": request.negative_prompt}
    story |= {"quality": request.quality, "sampler": request.sampler, "nfe": look.nfe}
    story |= {"guidance": request.guidance, "seed": seed}
    story |= {"generated_by": look.by} if look.by else {}
    image.info = {key: str(value) for key, value in story.items()}
    return image


def style() -> str:
    return (Path(__file__).parent / "page.css").read_text(encoding="utf-8")


def theme() -> gr.themes.Base:
    """Returns the page's colours and fonts; fonts are the system's, so no server is asked."""
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
        button_primary_background_fill_dark="#256f6a",
        button_primary_background_fill_hover_dark="#1f5f5b",
        button_primary_text_color="white", slider_color="#1f5f5b",
        input_background_fill="white", input_background_fill_dark="#24221f",
        input_border_color="#e4dfd6", input_border_color_dark="#3a3733",
    )  # fmt: skip
