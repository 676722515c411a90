"""JanusFlow and Janus-Pro as models of VLMEvalKit.

VLMEvalKit has no entry point; its models are in one dictionary. This adds a model there and passes
the rest of the command line to VLMEvalKit:

    python -m janusflow.integrations.vlmevalkit mine=janusflow/scenes --data POPE --mode all

As in VLMEvalKit's own wrapper of Janus, yes-or-no and multiple-choice questions get the short
prompts below, every other dataset its own prompt, and there is no system prompt.
"""

import string
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from janusflow.pipelines import image_io
from janusflow.pipelines.answering import ask
from janusflow.utils import images

try:
    from vlmeval.vlm.base import BaseModel
except ImportError:  # the class below can be used and tested without the toolkit
    BaseModel = object

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
POPE_END = " Please answer yes or no."  # in the data; SHORT takes its place


class JanusFlow(BaseModel):
    """A VLMEvalKit model: `generate_inner(message, dataset)` answers image paths and texts."""

    INSTALL_REQ = False
    INTERLEAVE = True

    def __init__(
        self,
        model_path: str = "janusflow/scenes",
        vae: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        system_prompt: str = "",
        **generate,
    ) -> None:
        """Loads a model; `vae` is JanusFlow's autoencoder if the folder has none.

        `generate` holds arguments of transformers' `generate`; by default answers are greedy and at
        most 2,048 tokens long.
        """
        super().__init__()
        self.pipe = image_io.load(model_path, vae, device, dtype)
        processor = self.pipe.processor
        processor.tags = replace(processor.tags, system_prompt=system_prompt)
        self.settings = {"max_new_tokens": 2048} | generate

    def generate_inner(self, message: Sequence[Mapping], dataset: str | None = None) -> str:  # noqa: ARG002
        """Answers [{"type": "image", "value": path}, {"type": "text", "value": ...}]."""
        return self._answer([_turn("user", message)])

    def chat_inner(self, message: Sequence[Mapping], dataset: str | None = None) -> str:  # noqa: ARG002
        """Returns the next answer after [{"role": "user", "content": [...as above...]}, ...]."""
        return self._answer([_turn(turn["role"], turn["content"]) for turn in message])

    def _answer(self, conversation: list[dict]) -> str:
        return ask(self.pipe, [conversation], **self.settings)[0]

    def use_custom_prompt(self, dataset: str) -> bool:
        return _kind(dataset) in ("Y/N", "MCQ")

    def build_prompt(self, line: Mapping, dataset: str) -> list[dict]:
        """Returns the message for one row of a yes-or-no or multiple-choice dataset."""
        shown = [{"type": "image", "value": path} for path in self.dump_image(line, dataset)]
        text = closed(line) if _kind(dataset) == "Y/N" else choice(line)
        return [*shown, {"type": "text", "value": text}]


def closed(line: Mapping) -> str:
    """Returns the prompt of a yes-or-no question."""
    return f"{line['question'].removesuffix(POPE_END)}\n{SHORT}"


def choice(line: Mapping) -> str:
    """Returns the prompt of a question with lettered options; cells that are NaN are left out."""
    options = [f"{c}. {line[c]}\n" for c in string.ascii_uppercase if _filled(line, c)]
    hint = f"Hint: {line['hint']}\n" if _filled(line, "hint") else ""
    end = f"{''.join(options)}\n{LETTER}" if options else SHORT
    return f"{hint}{line['question']}\n{end}"


def _filled(line: Mapping, name: str) -> bool:
    return name in line and line[name] is not None and line[name] == line[name]


def _kind(dataset: str) -> str | None:
    from vlmeval.dataset import DATASET_TYPE

    return DATASET_TYPE(dataset)


def _turn(role: str, parts: Sequence[Mapping]) -> dict:
    return {"role": role, "content": [_part(part) for part in parts]}


def _part(part: Mapping) -> dict:
    if part["type"] == "text":
        return {"type": "text", "text": part["value"]}
    if part["type"] == "image":
        return {"type": "image", "image": images.read(part["value"])}
    raise ValueError(f"the message holds a {part['type']!r}; give images and texts only")


def register(**models: str) -> None:
    """Registers packaged models, folders or hub ids as VLMEvalKit models under given names.

    Raises ImportError without VLMEvalKit.
    """
    try:
        from vlmeval.config import supported_VLM
    except ImportError as error:
        raise ImportError(
            f"{error}; VLMEvalKit is needed: install it from github.com/open-compass/VLMEvalKit"
        ) from error

    for name, path in models.items():
        supported_VLM[name] = partial(JanusFlow, model_path=path)


def main(words: Sequence[str]) -> None:
    """Takes `NAME=MODEL ...`, followed by the options of VLMEvalKit's `run.py` except `--model`."""
    named = [word for word in words if "=" in word and not word.startswith("-")]
    if not named:
        raise SystemExit("vlmevalkit: name a model first, as in mine=janusflow/scenes --data POPE")
    models = dict(word.split("=", 1) for word in named)
    try:
        register(**models)
    except ImportError as error:
        raise SystemExit(f"vlmevalkit: {error}") from error
    from vlmeval.run import main as run

    sys.argv = ["run.py", "--model", *models, *(word for word in words if word not in named)]
    run()


if __name__ == "__main__":
    main(sys.argv[1:])
