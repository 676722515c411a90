"""The arguments of a pipeline call besides the prompt: frozen dataclasses for generating and
editing.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
from torch import Tensor

import samplers
from janusflow.pipelines.guided_velocity import read_guidance
from janusflow.pipelines.presets import read_grid
from janusflow.utils.keywords import choice, modern, refuse_unknown
from janusflow.utils.limits import whole

Result = TypeVar("Result")

OUTPUT_TYPES = ("pil", "np", "pt", "latent")
LIMITED = dict(num_inference_steps="number", height="side", width="side")  # of utils.limits
RENAMED = {"reuse": "first_block_cache"}  # names of release 0.1
Texts = str | Sequence[str]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options that generating and editing share."""

    negative_prompt: Texts | None = None  # what to move away from; None and "" for the empty prompt
    num_inference_steps: int | None = None  # None: the quality's, or 30
    guidance_scale: float | str | Callable = 2.0  # a weight, 1 for none, or a rule of samplers
    sampler: str | samplers.Solver | None = None  # a name of samplers.SOLVERS
    grid: object = None  # a name of samplers.GRIDS, times from 0 to 1, or a function of the steps
    height: int | None = None  # pixels; the model's own
    width: int | None = None  # pixels; the model's own
    generator: object = None  # a torch.Generator or its seed, or a list with one an image
    seed: object = None  # of the first image, the next has seed + 1; or a list with one an image
    output_type: str = "pil"  # pil, np, pt or latent
    callback_on_step_end: Callable | None = None  # (pipe, step, t, tensors) -> tensors or None
    callback_on_step_end_tensor_inputs: Sequence[str] | None = ("latents",)
    memory_limit: int | None = None  # bytes that decoding may take; None: pipe.limit_memory's
    adapters: object = None  # {name: weight} or names; None: those that are active
    return_dict: bool = True  # False: a tuple (images, calls)

    def __post_init__(self):
        for name in ("num_inference_steps", "height", "width", "memory_limit"):
            self._set(name, whole(getattr(self, name), name, LIMITED.get(name), optional=True))
        if isinstance(self.grid, str):
            self._set("grid", read_grid(self.grid))
        self._set("guidance_scale", read_guidance(self.guidance_scale))
        check_output_type(self.output_type)
        if not isinstance(self.return_dict, bool | np.bool_):
            raise TypeError(f"return_dict is {self.return_dict!r:.60}; expected True or False")

    def _set(self, name: str, value) -> None:
        object.__setattr__(self, name, value)


@dataclass(frozen=True, kw_only=True)
class GenerateOptions(RunOptions):
    """Options of `pipe(prompt)`; the defaults are the published sampler's."""

    quality: str = "exact"  # a preset: exact, high, fast or draft
    num_images_per_prompt: int = 1
    image: object = None  # for a model that edits: what the prompts show, one, or one a prompt
    latents: Tensor | np.ndarray | None = None  # noise to start from, (images, c, h, w)
    first_block_cache: float | None = None  # tolerance; blocks are left out where less changes
    best_of: int = 1  # candidates an image, of which the verifier keeps one
    verifier: str | Callable = "own"  # a name of VERIFIERS, or (images, prompts) -> scores

    def __post_init__(self):
        super().__post_init__()
        for name in ("num_images_per_prompt", "best_of"):
            self._set(name, whole(getattr(self, name), name, "number"))
        if self.best_of == 1 and self.verifier != GenerateOptions.verifier:
            raise ValueError(
                "verifier chooses among candidates, and best_of is 1; give best_of above 1, or "
                "leave verifier out"
            )

    def refuse(self, what: str, *names: str) -> None:
        """Raises ValueError if one of these options is set, which has no meaning for `what`."""
        for name in names:
            if getattr(self, name) != getattr(GenerateOptions, name):
                raise ValueError(f"{what} does not use {name}; leave it out")


@dataclass(frozen=True, kw_only=True)
class EditOptions(RunOptions):
    """Options of `pipe.edit(image, prompt)`, named as in diffusers' image-to-image pipelines."""

    strength: float = 0.6  # above 0, a little, to 1, everything
    mask_image: object = None  # white changes, black stays
    invert: bool = False  # start from the image's own noise
    source_prompt: Texts | None = None  # what the image shows now, for inversion
    num_inference_steps: int = 30
    sampler: str | samplers.Solver = "euler"

    def __post_init__(self):
        super().__post_init__()
        self._set("strength", real(self.strength, "strength"))
        if not isinstance(self.invert, bool | np.bool_):
            raise TypeError(f"invert is {self.invert!r:.60}; expected True or False")


@dataclass(frozen=True, kw_only=True)
class InvertOptions:
    """Options of `pipe.invert(image)`."""

    num_inference_steps: int = 15
    guidance_scale: float | str | Callable = 1.0  # another weight needs a prompt, and is less exact
    sampler: str | samplers.Solver = "heun"
    grid: object = None
    height: int | None = None
    width: int | None = None
    output_type: str = "pil"

    def __post_init__(self):
        shared = {f.name: getattr(self, f.name) for f in fields(self)}
        checked = RunOptions(**shared)
        for name in shared:
            object.__setattr__(self, name, getattr(checked, name))


def real(value, name: str) -> float:
    """Converts a number of Python, numpy or torch to a float. Raises TypeError otherwise."""
    text = isinstance(value, str | bytes | bool | np.bool_)
    try:
        if not text:
            return float(value)
    except (TypeError, ValueError, RuntimeError):
        pass
    raise TypeError(f"{name} is {value!r:.60}; expected a number")


def check_output_type(name: str) -> None:
    """Raises ValueError for an unknown `output_type`."""
    choice("output_type is", name, OUTPUT_TYPES)


def texts(prompt: Texts) -> list[str]:
    """Returns one text or several as a list. Raises ValueError for an empty one."""
    if isinstance(prompt, np.ndarray) and not prompt.ndim:
        prompt = prompt.item()
    found = [prompt] if isinstance(prompt, str) else list(prompt) if _is_list(prompt) else [prompt]
    if not found or not all(isinstance(p, str) and p.strip() for p in found):
        shown = found if len(found) != 1 else found[0]
        raise ValueError(f"prompt is {shown!r:.200}; expected one text or several, none empty")
    return [str(text) for text in found]


def spread(items: list, count: int, what: str, of: str) -> list:
    """Returns one item for each of `count`, repeating a single one; ValueError if others came."""
    if len(items) not in (1, count):
        raise ValueError(f"{len(items)} {what} came for {count} {of}; give one, or one each")
    return items * count if len(items) == 1 else items


def avoided(negative: Texts | None, count: int) -> list[str | None]:
    """Returns the negative prompt of each of `count` prompts; None stands for the empty prompt.

    Raises ValueError for another number of texts, and for values that are not texts.
    """
    if isinstance(negative, np.ndarray) and not negative.ndim:
        negative = negative.item()
    one = negative is None or isinstance(negative, str) or not _is_list(negative)
    found = [negative] * count if one else list(negative)
    if len(found) != count:
        raise ValueError(f"{len(found)} negative prompts came for {count} prompts; give one each")
    wrong = [text for text in found if not (text is None or isinstance(text, str))]
    if wrong:
        raise ValueError(
            f"negative_prompt is {wrong[0]!r:.80}; expected a text, or None for the empty prompt"
        )
    return [None if text is None or not text.strip() else str(text) for text in found]


def _is_list(value) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, bytes)


def takes(kind: type) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """A decorator for methods whose last argument is `options`: its fields become keywords too.

    `pipe(prompt, seed=1)` equals `pipe(prompt, options=GenerateOptions(seed=1))`; if both are
    given, the keywords override the object's fields. Unknown keywords raise TypeError, and the
    signature lists all of them.
    """
    named = fields(kind)

    def decorate(method: Callable) -> Callable:
        own = inspect.signature(method)
        places = [p for p in own.parameters.values() if p.name != "options"]
        names = [p.name for p in places[1:]]

        @functools.wraps(method)
        def call(self, *args, options=None, **given):
            where = f"{type(self).__name__}.{method.__name__}"
            given = modern(where, given, RENAMED if kind is GenerateOptions else {})
            _refuse_others_words(where, given)
            refuse_unknown(where, given, [*names, "options", *(f.name for f in named)])
            if len(args) > len(names):
                raise TypeError(
                    f"{where} got {len(args)} values without a name; only {' and '.join(names)} "
                    "can go without, name the others"
                )
            placed = {name: given.pop(name) for name in names if name in given}
            made = kind(**given) if options is None else _replaced(options, kind, given, where)
            bound = own.bind(self, *args, **placed, options=made)
            return method(*bound.args, **bound.kwargs)

        call.__signature__ = own.replace(parameters=[*places, *_keywords(kind, named)])
        return call

    return decorate


# Words of other pipelines, and how to say the same here.
OTHERS = {
    "prompt_embeds": "prompts are read together with the image, so give prompt as text",
    "negative_prompt_embeds": "give negative_prompt as text",
    "ip_adapter_image": "a model that edits takes an image as image=",
    "timesteps": "give times from 0, noise, to 1, data, as grid=",
    "sigmas": "give times from 0, noise, to 1, data, as grid=",
    "steps": "did you mean 'num_inference_steps'?",
    "num_steps": "did you mean 'num_inference_steps'?",
    "cfg": "did you mean 'guidance_scale'?",
    "cfg_scale": "did you mean 'guidance_scale'?",
    "true_cfg_scale": "did you mean 'guidance_scale'?",
    "guidance_rescale": "rescaled guidance is guidance_scale='cfg_rescale:WEIGHT,SHARE'",
    "scheduler": "the solver is sampler, such as sampler='heun'",
    "eta": "a solver with noise is chosen by sampler, such as sampler='euler_maruyama'",
    "num_images": "did you mean 'num_images_per_prompt'?",
    "callback": "did you mean 'callback_on_step_end'?",
    "callback_steps": "did you mean 'callback_on_step_end'?",
    "cross_attention_kwargs": "weights of adapters are adapters={name: weight}",
    "joint_attention_kwargs": "weights of adapters are adapters={name: weight}",
    "attention_kwargs": "weights of adapters are adapters={name: weight}",
}
EDITS = dict.fromkeys(("strength", "mask_image"), "an image is changed by pipe.edit(image, prompt)")


def _refuse_others_words(where: str, given: Mapping) -> None:
    """Raises TypeError for a keyword of other libraries' pipelines, with ours."""
    known = OTHERS if where.endswith(".edit") else OTHERS | EDITS
    for name in (name for name in given if name in known):
        raise TypeError(f"{where} got {name!r}, which is not an argument; {known[name]}")


def _replaced(options, kind: type, given: Mapping, where: str):
    if not isinstance(options, kind):
        raise TypeError(
            f"options of {where} are {type(options).__name__}; expected {kind.__name__}"
        )
    return replace(options, **given)


def _keywords(kind: type, named) -> list[inspect.Parameter]:
    keyword = inspect.Parameter.KEYWORD_ONLY
    own = [inspect.Parameter(f.name, keyword, default=f.default, annotation=f.type) for f in named]
    return [*own, inspect.Parameter("options", keyword, default=None, annotation=kind.__name__)]
