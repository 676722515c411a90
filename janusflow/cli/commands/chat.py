"""`janusflow chat`: answers questions about an image."""

from dataclasses import dataclass
from pathlib import Path

from janusflow.cli import shared_options as o
from janusflow.cli.command import command
from janusflow.cli.shared_options import OUTPUT, argument, path
from janusflow.cli.terminal import importing, tell, warn_of_loose_words, with_stdin
from janusflow.utils import limits


@dataclass(frozen=True, kw_only=True)
class Options(o.AdapterOptions):
    """The options of `janusflow chat`."""

    image: Path = argument("Answers questions about this image file.", parser=path, metavar="IMAGE")
    question: list[str] = argument(
        "Asks this question; several questions form one conversation, and - reads one per line "
        "from standard input."
    )
    max_new_tokens: int = OUTPUT.option(
        "Ends each answer after at most this many tokens.", default=512
    )


@command("chat", panel="Images and answers")
def chat(options: Options) -> dict:
    """Answers questions about an image; each question sees the earlier ones and their answers."""
    with importing():
        from janusflow.cli import load_model
        from janusflow.utils import images

    warn_of_loose_words(options.question, "questions", "janusflow chat IMAGE")
    questions = with_stdin(options.question)
    if not all(text.strip() for text in questions):
        raise ValueError("the question is empty; ask something about the image")
    limits.whole(options.max_new_tokens, "--max-new-tokens", "number")
    image = images.read(options.image)
    pipe = load_model.load(options, options.lora)
    talk = pipe.conversation([image])
    answers = [_answer(talk, text, options.max_new_tokens) for text in questions]
    said = dict(question=questions, answer=answers)
    if len(answers) == 1:
        said = dict(question=questions[0], answer=answers[0])
    return said | dict(image=options.image, picture=options.image, model=options.model)


def _answer(talk, question: str, most: int) -> str:
    """Prints the answer as it is generated, and says so if `most` tokens cut it off."""
    pieces, counted = [], _counter()
    for piece in talk.stream(question, max_new_tokens=most, stopping_criteria=[counted]):
        print(piece, end="", flush=True)
        pieces.append(piece)
    print()
    ended = counted.last == talk.pipe.processor.tokenizer.eos_token_id
    if counted.tokens >= most and not ended:
        tell(f"the answer is cut after {most} tokens; raise --max-new-tokens for the rest")
    return "".join(pieces)


def _counter():
    """A stopping criterion that never stops an answer, but counts its tokens and keeps the last
    one.
    """
    import torch
    from transformers import StoppingCriteria

    class Counter(StoppingCriteria):
        tokens, last = 0, None

        def __call__(self, input_ids, *_args, **_kwargs):
            self.tokens, self.last = self.tokens + 1, int(input_ids[0, -1])
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

    return Counter()
