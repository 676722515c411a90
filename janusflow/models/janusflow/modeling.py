"""JanusFlow: one language model that answers about images and predicts the velocity that generates
them.

Ma et al. 2024, arXiv 2411.07975. Parameter names are those of the published checkpoint.
"""

import inspect
import math

import torch
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import TransformersKwargs

from janusflow.models.attention_capture import last_block
from janusflow.models.janusflow.configuration import JanusFlowConfig
from janusflow.models.janusflow.generation_adapters import (
    GenerationDecoder,
    GenerationEncoder,
    Times,
)
from janusflow.models.janusflow.language import build_language_model
from janusflow.models.janusflow.packing import image_positions
from janusflow.models.janusflow.pretrained import JanusFlowPreTrainedModel
from janusflow.models.janusflow.vision import build_vision_encoder
from janusflow.models.norms import LanguageRMSNorm, keep_float64
from janusflow.models.prompt_cache import CACHE, PromptCache
from janusflow.utils.cpu.onednn_linear import repeating, use_onednn
from janusflow.utils.forward_mode import differentiable_attention
from janusflow.utils.keywords import refuse_unknown

# bytes up to which glibc gives freed memory out again; more is fetched from the system and cleared
# at every use, which an evaluation of many wide rows feels (docs/speed.md)
HEAP = 32 << 20
# what its `generate` and Trainer hand to any model's `forward`
OF_TRANSFORMERS = (CACHE, "past_key_values", "cache_position", "return_dict", "tokenizer")


class JanusFlowModel(JanusFlowPreTrainedModel, GenerationMixin):
    """The published network: `encode_prompt` and `velocity` generate images, `generate` answers,
    `forward` trains.

    `from_pretrained` reads the published layout, and `save_pretrained` writes the same names.
    """

    def __init__(self, config: JanusFlowConfig):
        super().__init__(config)
        self.sizes, hidden = config.generation, config.language_config.hidden_size
        eps = getattr(config.language_config, "rms_norm_eps", 1e-6)
        self.vision_und_enc_model = build_vision_encoder(config.vision)
        self.vision_und_enc_aligner = nn.Linear(config.vision.width, hidden)
        self.beg_of_und_embed = nn.Parameter(torch.empty(1, hidden))
        self.vision_gen_enc_model = GenerationEncoder(self.sizes, hidden)
        self.vision_gen_enc_aligner = nn.Linear(self.sizes.channels, hidden)
        self.language_model = build_language_model(config.language_config)
        own = inspect.signature(self.language_model.forward).parameters
        self._forward_keywords = (*own, *TransformersKwargs.__annotations__, *OF_TRANSFORMERS)
        self.vision_gen_dec_aligner_norm = LanguageRMSNorm(hidden, eps)
        self.vision_gen_dec_aligner = nn.Linear(hidden, self.sizes.channels)
        self.vision_gen_dec_model = GenerationDecoder(self.sizes, hidden)
        self.post_init()
        keep_float64(use_onednn(self))

    # Generation

    @apply_forward_hook
    def encode_prompt(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        unconditional: bool = False,
        pixel_values: Tensor | None = None,
        image_token_mask: Tensor | None = None,
    ) -> PromptCache:
        """Returns the keys and values of a prompt: ids (B, L) with BOS and without the generation
        tag, mask (B, L).

        Padding is where the mask is 0. Images in the prompt, as for an edit, are passed as in
        `embed`. The unconditional prompt keeps each row's BOS and its positions; the tokens between
        are masked out of attention, so their keys need not exist.
        """
        if input_ids.ndim != 2 or input_ids.shape[1] == 0:
            raise ValueError(
                f"input_ids have shape {tuple(input_ids.shape)}; expected (batch, length) with at "
                f"least BOS"
            )
        seen = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
        if seen.shape != input_ids.shape or not bool(seen.any(dim=1).all()):
            raise ValueError(
                f"attention_mask has shape {tuple(seen.shape)} for ids {tuple(input_ids.shape)}, "
                "or an empty row; expected the same shape with at least one token a row"
            )
        self.check_length(int(seen.sum(dim=1).max()))
        length = seen.sum(dim=1)
        if unconditional:
            first = seen.argmax(dim=1, keepdim=True)
            input_ids, seen = input_ids.gather(1, first), seen.gather(1, first)
            pixel_values = image_token_mask = None
        padded = not bool(seen.all())
        cache = DynamicCache(config=self.config.language_config)
        self.language_model.model(
            inputs_embeds=self.embed(input_ids, pixel_values, image_token_mask),
            attention_mask=seen if padded else None,
            position_ids=(seen.cumsum(dim=1) - 1).clamp(min=0),
            use_cache=True,
            **{CACHE: cache},
        )
        return PromptCache(
            keys=tuple(layer.keys for layer in cache.layers),
            values=tuple(layer.values for layer in cache.layers),
            mask=seen.bool() if padded else None,
            length=length,
        )

    @apply_forward_hook
    @repeating()
    @differentiable_attention()
    def velocity(
        self,
        latents: Tensor,
        t: Tensor | Times,
        prompt: PromptCache,
        *,
        return_hidden: int | None = None,
        target: Tensor | Times | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """v = d latents / dt at time t: latents (B, c, H, W) and t (B,) in [0, 1], 0 noise, 1 data
        -> (B, c, H, W).

        In place of t it takes the output of `times`. It is a pure function: the prompt (B rows, or
        one for all) is only read. The result has the latents' dtype, whatever the network's. With
        `return_hidden=k` it also returns the image tokens after block k, (B, H W / p^2, D); k = 0
        is the input of the first block. `target`, shaped like t, is the end time of a flow map: the
        result is then the mean velocity from t to `target`. Raises ValueError for latents that do
        not fit the network.
        """
        self.check_latents(latents, t, prompt)
        if target is not None:
            self.check_latents(latents, target, prompt)
        count, at_once = len(latents), self._at_once(latents)
        if count <= at_once:
            return self.unchecked_velocity(latents, t, prompt, return_hidden, target)
        size = math.ceil(count / math.ceil(count / at_once))
        found = []
        for rows in (slice(i, i + size) for i in range(0, count, size)):
            own, read, end = (
                x if x is None or len(x) == 1 else x[rows] for x in (t, prompt, target)
            )
            found.append(self.unchecked_velocity(latents[rows], own, read, return_hidden, end))
        if return_hidden is None:
            return torch.cat(found)
        return tuple(map(torch.cat, zip(*found, strict=True)))

    def _at_once(self, latents: Tensor) -> int:
        """Returns the rows to evaluate together: all, or on a CPU as many as fit in `HEAP`."""
        if latents.device.type != "cpu" or torch.is_grad_enabled():
            return len(latents)
        sizes = self.sizes
        tokens = latents.shape[2] * latents.shape[3] // sizes.patch**2
        text = self.config.language_config
        width = max(getattr(text, "intermediate_size", 4 * text.hidden_size), 8 * sizes.channels)
        return max(1, HEAP // (tokens * width * self.dtype.itemsize))

    def unchecked_velocity(
        self,
        latents: Tensor,
        t: Tensor | Times,
        prompt: PromptCache,
        return_hidden: int | None,
        target: Tensor | Times | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The computation of `velocity` without its checks, for compiled graphs."""
        features, times, sequence = self.enter(latents.to(self.dtype), t)
        decoder = self.language_model.model
        if return_hidden == len(decoder.layers):  # its list holds that after the last norm only
            with last_block(decoder) as seen:
                out = self._after(prompt, sequence, tuple(features.shape[2:]))
            hidden = seen[0]
        else:
            wanted = {"output_hidden_states": return_hidden is not None}
            out = self._after(prompt, sequence, tuple(features.shape[2:]), **wanted)
            hidden = None if return_hidden is None else out.hidden_states[return_hidden]
        heard = times if target is None else self.decoder_times(target)
        v = self.leave(out.last_hidden_state, features, heard).to(latents.dtype)
        return v if return_hidden is None else (v, hidden[:, 1:])

    def decoder_times(self, t: Tensor | Times) -> Times:
        """Returns a flow map's end time as the decoder alone sees it."""
        if isinstance(t, Times):
            return t
        return Times(self.vision_gen_enc_model.embed(t.to(self.device), self.dtype))

    def times(self, t: Tensor) -> Times:
        """Returns everything the network computes from times t (S,) alone, for all of them at once.
        Rows of the result can be passed to `velocity` in place of t.
        """
        encoder, decoder = self.vision_gen_enc_model, self.vision_gen_dec_model
        embedding = encoder.embed(t.to(self.device), self.dtype)
        blocks = (encoder.mid_block, decoder.mid_block)
        return Times(embedding, *(part.modulations(embedding) for part in blocks))

    def enter(self, latents: Tensor, t: Tensor | Times) -> tuple[Tensor, Times, Tensor]:
        """Returns features (B, C, h, w), `Times`, tokens (B, 1 + h w, D) of noisy latents at t."""
        t = t if isinstance(t, Times) else t.to(latents.device)
        features, times = self.vision_gen_enc_model(latents, t)
        tokens = self.vision_gen_enc_aligner(features.flatten(2).transpose(1, 2))  # (B, n, D)
        first = times.embedding[:, None].expand(len(tokens), -1, -1)
        return features, times, torch.cat([first, tokens], dim=1)

    def leave(self, hidden: Tensor, features: Tensor, times: Times) -> Tensor:
        """The language model's normalised output (B, 1 + h w, D) -> velocity (B, c, H, W)."""
        x = self.vision_gen_dec_aligner(self.vision_gen_dec_aligner_norm(hidden[:, 1:]))
        x = x.transpose(1, 2).unflatten(2, features.shape[2:])  # (B, C, h, w)
        return self.vision_gen_dec_model(x, features, times)

    def _after(self, prompt: PromptCache, sequence: Tensor, grid: tuple[int, int], **kwargs):
        """Applies the language model to embeddings (B, q, D) that follow the prompt, causally."""
        about = self._behind(prompt, sequence, grid)
        return self.language_model.model(inputs_embeds=sequence, **about, **kwargs)

    def through(self, blocks, prompt: PromptCache, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Applies some of the language model's blocks, without the final norm, to the sequence
        after the prompt.

        (B, q, D) -> (B, q, D). `grid` is the image's height and width in tokens.
        """
        about = self._behind(prompt, x, grid)
        turned = self.language_model.model.rotary_emb(x, position_ids=about["position_ids"])
        for block in blocks:
            x = block(x, position_embeddings=turned, **about)
        return x

    def _behind(self, prompt: PromptCache, sequence: Tensor, grid: tuple[int, int]) -> dict:
        """Returns the blocks' arguments for a sequence (B, q, D) that follows the prompt."""
        places = image_positions(*grid, self.config.image_grid).to(sequence.device)
        positions = prompt.length[:, None] + places
        return {
            "attention_mask": self._attention_mask(prompt, sequence.shape[1]),
            "position_ids": positions.expand(len(sequence), -1),
            CACHE: prompt,
            "use_cache": False,
        }

    def _attention_mask(self, prompt: PromptCache, q: int) -> Tensor:
        """Returns (1 or B, 1, q, L + q): the prompt's visible keys, then a causal mask."""
        device, past = prompt.length.device, prompt.keys[0].shape[2]
        causal = torch.ones(q, past + q, dtype=torch.bool, device=device).tril(past)[None, None]
        if prompt.mask is not None:
            seen = nn.functional.pad(prompt.mask, (0, q), value=True)
            causal = causal & seen[:, None, None]
        if self.config.language_config._attn_implementation in ("eager", "sdpa"):
            # both add it in the end, and would make numbers of it in every block
            return torch.zeros_like(causal, dtype=self.dtype).masked_fill(
                ~causal, torch.finfo(self.dtype).min
            )
        return causal

    def check_latents(self, latents: Tensor, t: Tensor | Times, prompt: PromptCache) -> None:
        sizes = self.sizes
        if latents.ndim != 4 or latents.shape[1] != sizes.latent_channels:
            raise ValueError(
                f"latents have shape {tuple(latents.shape)}; expected (batch, "
                f"{sizes.latent_channels}, height, width)"
            )
        if latents.shape[2] % sizes.patch or latents.shape[3] % sizes.patch or 0 in latents.shape:
            raise ValueError(
                f"latents are {latents.shape[2]} x {latents.shape[3]}; both sides must be "
                f"multiples of {sizes.patch}"
            )
        if isinstance(t, Times):
            shape, fits = (len(t),), len(t) in (1, len(latents))
        else:
            shape, fits = tuple(t.shape), t.shape == latents.shape[:1]
        if not fits or len(prompt) not in (1, len(latents)):
            raise ValueError(
                f"{len(latents)} latents came with t of shape {shape} and {len(prompt)} prompts; "
                "expected one t and one prompt a latent, or one prompt for all"
            )

    # Understanding

    @repeating()
    def image_embeds(self, pixel_values: Tensor) -> Tensor:
        """Pixels (images, 3, S, S) -> embeddings in the sequence, (images, 1 + tokens, D)."""
        pixels = self._checked_pixels(pixel_values).flatten(0, -4).to(self.dtype)
        features = self.vision_und_enc_aligner(self.vision_und_enc_model(pixels))
        start = self.beg_of_und_embed.expand(len(features), 1, -1)
        return torch.cat([start, features], dim=1)

    def embed(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        image_token_mask: Tensor | None = None,
    ) -> Tensor:
        """Returns token embeddings (B, L, D), with images' at the masked places in order."""
        if (pixel_values is None) != (image_token_mask is None or not bool(image_token_mask.any())):
            raise ValueError(
                "pixel_values and image_token_mask belong together; take both from the processor"
            )
        if pixel_values is None:
            self._check_images(input_ids)
            return self.get_input_embeddings()(input_ids)
        places = image_token_mask.to(torch.bool)
        embeds = self.get_input_embeddings()(input_ids.masked_fill(places, 0))
        images = self.image_embeds(pixel_values).flatten(0, 1).to(embeds.dtype)
        if int(places.sum()) != len(images):
            raise ValueError(
                f"image_token_mask marks {int(places.sum())} places, the images fill "
                f"{len(images)}; take both from one call of the processor"
            )
        return embeds.masked_scatter(places[..., None], images)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_token_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        """Returns the next token's logits (B, L, V), and with `labels` (B, L) the mean
        cross-entropy of those that are not -100, or 0 if there is none.

        Positions follow the mask unless given; further arguments go to the language model. Raises
        ValueError for more tokens than the model has positions.
        """
        refuse_unknown(f"{type(self).__name__}.forward", kwargs, self._forward_keywords)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError(
                "input_ids and inputs_embeds came both or not at all; give one of them"
            )
        own = self.config.language_config._attn_implementation
        if kwargs.get("output_attentions") and own != "eager":
            raise ValueError(
                f"output_attentions needs attn_implementation='eager', and this model has {own!r}, "
                "which keeps no attention; load it with that implementation"
            )
        self._check_ids(input_ids, "input_ids")
        if inputs_embeds is None:
            past = kwargs.get("cache", kwargs.get("past_key_values"))
            if pixel_values is None and past is not None and past.get_seq_length():
                inputs_embeds = self.get_input_embeddings()(input_ids)  # an answer may hold any
            else:
                inputs_embeds = self.embed(input_ids, pixel_values, image_token_mask)
        kwargs |= self._loss_settings(labels, inputs_embeds.shape[:2], kwargs)
        self._check_sequence(inputs_embeds, attention_mask)
        if position_ids is None and attention_mask is not None and attention_mask.ndim == 2:
            position_ids = (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)
            position_ids = position_ids[:, -inputs_embeds.shape[1] :]
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            labels=None if labels is None else labels.long(),
            **kwargs,
        )

    @apply_forward_hook
    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_token_mask: Tensor | None = None,
        **kwargs,
    ) -> Tensor:
        """Returns the ids of the answers without those of their prompts, (B, new tokens).

        Arguments are those of `GenerationMixin.generate`; defaults come from `generation_config`.
        """
        embeds = kwargs.pop("inputs_embeds", None)
        self._refuse_token_search(kwargs)
        if embeds is None:
            if (ids := kwargs.pop("inputs", None) if input_ids is None else input_ids) is None:
                raise ValueError("generate got no prompt; pass on what the processor returned")
            self._check_ids(ids, "input_ids")
            embeds = self.embed(ids, pixel_values, image_token_mask)
        if attention_mask is None:
            attention_mask = embeds.new_ones(embeds.shape[:2], dtype=torch.long)
        return GenerationMixin.generate(
            self, inputs_embeds=embeds, attention_mask=attention_mask, **kwargs
        )

    def check_length(self, tokens: int) -> None:
        """Raises ValueError for more tokens than the language model has positions."""
        most = self.config.language_config.max_position_embeddings
        if tokens > most:
            raise ValueError(
                f"the prompt has {tokens:,} tokens, the model {most:,} positions; shorten the text "
                "or give fewer images"
            )
