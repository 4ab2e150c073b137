"""A Flux transformer of diffusers while an adapter steers it: hooks on its blocks, nothing of it changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..runtime import current_host
from .flux_tokens import text_positions

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

    from .flux_adapter import Features, FluxAdapter

# Inputs of both kinds of blocks by their place; gradient checkpointing calls them without names.
BLOCK_INPUTS = ("hidden_states", "encoder_hidden_states", "temb", "image_rotary_emb", "joint_attention_kwargs")


@contextmanager
def controlled(
    flux: FluxTransformer2DModel, adapter: FluxAdapter | None = None, dtype: torch.dtype = torch.float32
) -> Iterator[ControlledFlux]:
    """Inside the block the adapter steers this Flux, through calls of what is given here alone; afterwards the Flux is as before.

    dtype: what the Flux computes in, whatever its weights are kept as. Where gradients are checkpointed, the block must last
    until a call's backward pass, and no other call come between. Raises BadValueError for an adapter of another Flux.
    """
    if adapter is not None:
        adapter.require_fit(flux)
    network = ControlledFlux(flux, adapter, dtype)
    with ExitStack() as hooks:
        for index, block in enumerate([*flux.transformer_blocks, *flux.single_transformer_blocks]):
            for handle in network.hooks_on(block, index):
                hooks.callback(handle.remove)
        yield network


class ControlledFlux:
    """Velocities of a Flux, steered or plain. A block is never begun once the person has cancelled."""

    def __init__(self, flux: FluxTransformer2DModel, adapter: FluxAdapter | None, dtype: torch.dtype) -> None:
        """See controlled(), which makes the only ones that work."""
        self.flux, self.adapter, self.dtype = flux, adapter, dtype
        self._features: Features | None = None
        self._strength = 1.0

    def __call__(
        self,
        z_t: Tensor,
        prompt: Tensor,
        pooled: Tensor,
        timestep: Tensor,
        guidance: Tensor,
        z_lq: Tensor | None = None,
        *,
        image_ids: Tensor,
        strength: float = 1.0,
    ) -> Tensor:
        """v [B, L, C] of a packed latent z_t [B, L, C], steered by the degraded one, z_lq, where that is given.

        prompt [B, N, D]; pooled [B, P]; timestep, guidance [B], the former in 0..1, the latter without meaning to a Flux that has
        no embedder for it; image_ids [L, 3]; strength multiplies every control.
        """
        self._strength, self._features = strength, None
        if self.adapter is not None and z_lq is not None:
            self._features = self.adapter(z_t, z_lq, prompt, pooled, timestep, guidance, image_ids)
        velocity: Tensor = self.flux(
            hidden_states=z_t.to(self.dtype),
            encoder_hidden_states=prompt.to(self.dtype),
            pooled_projections=pooled.to(self.dtype),
            timestep=timestep,
            img_ids=image_ids,
            txt_ids=text_positions(prompt.shape[1]).to(image_ids),
            guidance=guidance if self.flux.config.guidance_embeds else None,
            return_dict=False,
        )[0]
        if not torch.is_grad_enabled():
            self._features = None
        return velocity

    def hooks_on(self, block: nn.Module, index: int) -> Iterator[Any]:
        """Handles of the hooks through which the block with that index is steered."""
        host = current_host()
        yield block.register_forward_pre_hook(lambda *_: host.check_interrupted())
        if self.adapter is not None and self.adapter.config.injection == "before":
            yield block.register_forward_pre_hook(partial(self._steer_inputs, index), with_kwargs=True)
        elif self.adapter is not None:
            yield block.register_forward_hook(partial(self._steer_outputs, index))

    def _steer_inputs(self, index: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        named = {**dict(zip(BLOCK_INPUTS, args, strict=False)), **kwargs}
        text, image = self._steered(index, named["encoder_hidden_states"], named["hidden_states"])
        return (), {**named, "encoder_hidden_states": text, "hidden_states": image}

    def _steer_outputs(self, index: int, _: nn.Module, __: object, tokens: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return self._steered(index, *tokens)

    def _steered(self, index: int, text: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Text and image tokens with the controls of that block added."""
        adapter, features = self.adapter, self._features
        if adapter is None or features is None:
            return text, image
        image_layer, text_layer = adapter.layers_of(index)
        return text_layer.added_to(text, features.text, self._strength), image_layer.added_to(image, features.image, self._strength)
