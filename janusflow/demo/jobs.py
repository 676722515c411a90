"""What happens when a button is pressed, and which errors a visitor sees."""

import logging
from collections.abc import Callable, Iterator
from functools import wraps

import gradio as gr
from PIL import Image

from janusflow.demo import actions, parts, requests
from janusflow.demo.requests import GenerationRequest, InvalidRequest, Missing

SHELF = 12  # images kept for a visitor
TURNS = 6  # questions about one image that are remembered
FIELDS = ("prompt", "negative_prompt", "quality", "sampler", "nfe", "guidance", "seed", "count")
log = logging.getLogger("janusflow.demo")


def painting(pipe, *values) -> Iterator[tuple]:
    """Yields the image in progress, its strip, and the gallery, newest first.

    `values` are those of `FIELDS`, followed by the gallery.
    """
    *asked, shelf = values
    request = GenerationRequest(**dict(zip(FIELDS, asked, strict=True)))
    yield gr.skip(), parts.way([], "Generating ..."), gr.skip(), gr.skip()
    for seed in range(request.seed, request.seed + int(request.count)):
        seen = []
        for look in actions.generate(pipe, request, seed):
            if look is None:
                yield (gr.skip(),) * 4
                continue
            seen.append(look)
            if look.t < 1:
                note = f"Generating, t = {look.t:.2f} ..."
                yield look.image, parts.way(seen, note), gr.skip(), gr.skip()
        final = parts.signed(look, request, seed)
        shelf = [(final, f"{request.prompt} · seed {seed}"), *shelf][:SHELF]
        by = f" by {look.by}" if look.by else ""
        said = parts.way(seen, f"{look.nfe} network evaluations{by}, seed {seed}")
        yield final, said, gr.update(value=shelf, visible=True), shelf


def comparing(pipe, prompt, left, left_nfe, right, right_nfe, guidance, seed) -> Iterator[tuple]:
    """Yields both images in progress, and at last their difference."""
    shared = {"prompt": prompt, "guidance": guidance, "seed": seed}
    pair = [
        GenerationRequest(sampler=left, nfe=left_nfe, **shared),
        GenerationRequest(sampler=right, nfe=right_nfe, **shared),
    ]
    looks = [None, None]
    for i, request in enumerate(pair):
        for look in actions.generate(pipe, request):
            looks[i] = look or looks[i]
            yield *(one and one.image for one in looks), gr.skip()
    images = [parts.signed(look, own, seed) for look, own in zip(looks, pair, strict=True)]
    apart = actions.apart(looks[0].image, looks[1].image)
    said = (
        f"Left, {left}: {looks[0].nfe} network evaluations. Right, {right}: {looks[1].nfe}. "
        f"The images differ by {apart:.1f} of 255 grey levels."
    )
    yield *images, parts.note(said)


def walking(pipe, prompt, sampler, nfe, frames, guidance, seed) -> Iterator[str]:
    """Yields the frames of a trajectory in turn, and at last the same as a GIF."""
    request = GenerationRequest(
        prompt=prompt, sampler=sampler, nfe=nfe, guidance=guidance, seed=seed
    )
    wanted = requests.whole(frames, "number of frames", 2, requests.MAX_FRAMES)
    seen, label = [], f"{request.prompt}, {sampler}, seed {request.seed}"
    yield parts.track(seen, wanted, "Generating ...")
    for frame in actions.trajectory(pipe, request, wanted):
        if frame is not None:
            seen.append(frame)
            yield parts.track(seen, wanted, f"t = {frame.t:.2f}, {frame.nfe} network evaluations")
    said = f"{label}: {seen[-1].nfe} network evaluations"
    yield parts.track(seen, len(seen), said, moving=True)


def editing(pipe, path, prompt, strength, guidance, seed) -> Iterator[tuple]:
    """Edits the image and shows the result."""
    image = requests.image(path)
    request = GenerationRequest(prompt=prompt, guidance=guidance, seed=seed)
    yield gr.skip(), parts.note("Generating ...")
    middle = requests.square(image)
    made = actions.edit(pipe, middle, request, strength)
    cut = "" if middle.size == image.size else ", of the image: its middle square"
    yield made, parts.note(f"strength {strength:g}, seed {request.seed}{cut}")


def answering(pipe, path, question, turns) -> Iterator[tuple]:
    """Yields the conversation with the growing answer, and an empty input for the next question."""
    image, asked = requests.image(path), requests.text(question, "question")
    turns = requests.turns(turns, 2 * TURNS)
    plain = [{"role": t["role"], "content": _plain(t["content"])} for t in turns]
    shown = [*plain, {"role": "user", "content": asked}]
    yield [*shown, {"role": "assistant", "content": "..."}], gr.skip()
    said = ""
    for said in actions.answer(pipe, image, asked, plain):
        yield [*shown, {"role": "assistant", "content": said or "..."}], gr.skip()
    yield [*shown, {"role": "assistant", "content": said or "(no words)"}], ""


def _plain(content) -> str:
    """Returns the text of a message, in whichever form the page's component stores it."""
    if isinstance(content, list):
        content = "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return requests.text(content, "message")


def latest(shelf: list) -> Iterator[Image.Image]:
    """Returns the most recent image of the gallery."""
    if not shelf:
        raise Missing("There is no generated image yet; please generate one first.")
    yield shelf[0][0]


def told(deed: Callable, outputs: int = 1) -> Callable:
    """A context that turns errors into messages for the visitor: our own sentences only, the rest
    is logged.

    A missing input is a hint that leaves the outputs as they are.
    """

    @wraps(deed)
    def safe(*args):
        try:
            yield from deed(*args)
        except Missing as hint:
            gr.Info(str(hint), duration=6)
            yield gr.skip() if outputs == 1 else (gr.skip(),) * outputs
        except InvalidRequest as error:
            raise gr.Error(str(error), duration=8, print_exception=False) from None
        except Exception:
            log.exception("a request failed")
            raise gr.Error(
                "This did not work. Please try other settings.", duration=8, print_exception=False
            ) from None

    return safe
