"""IP-Adapter on a frozen score network: a picture speaks to it beside the text, by keys and values of its own.

"IP-Adapter: Text Compatible Image Prompt Adapter for Text-to-Image Diffusion Models" (arXiv 2308.06721), equation 5: Z = Attention(Q, K,
V) + scale Attention(Q, K', V'). What InstaRevive's identity-preserving cartoons take as the real score network (its section A.5).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.errors import WeightsError
from ..core.weights.files import load_strictly, read_weights
from .bases import is_dry
from .recipe import Strict

if TYPE_CHECKING:
    from diffusers.models.attention_processor import Attention
    from transformers import CLIPVisionModelWithProjection

# OpenAI's, which every published IP-Adapter's encoder takes.
CLIP_MEAN, CLIP_DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# OpenCLIP's ViT-H/14, the encoder of the published IP-Adapters.
PUBLISHED_ENCODER: dict[str, Any] = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16, "patch_size": 14,
    "image_size": 224, "projection_dim": 1024, "hidden_act": "gelu",
}  # fmt: skip


class ImagePromptSettings(Strict):
    """adapter: an IP-Adapter for the teacher as safetensors with the published names, `image_proj.*` and `ip_adapter.N.to_k_ip.weight`
    (convert an ip-adapter .bin by `kintsugi convert`); none is published for PixArt-alpha. encoder: the folder of its CLIP, transformers'
    layout. tokens: how many a picture becomes."""

    adapter: Path
    encoder: Path
    tokens: int = Field(4, ge=1)
    scale: float = 1.0


class ImagePrompt(nn.Module):
    """The adapter with its image encoder. The network that it speaks to is no submodule."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: nn.Module, encoder: CLIPVisionModelWithProjection, tokens: int, scale: float) -> None:
        """network: a diffusers one, whose cross-attentions are called `attn2`."""
        super().__init__()
        self.encoder: Any = encoder
        self.scale = scale
        self._attentions: list[Any] = [module for name, module in network.named_modules() if name.endswith(".attn2")]
        self.image_proj = _Projection(int(encoder.config.projection_dim), self._attentions[0].cross_attention_dim, tokens)
        # The published numbers count self-attentions too, which stand before each cross-attention and have no adapter.
        layers = {str(2 * index + 1): _KeysAndValues(attention) for index, attention in enumerate(self._attentions)}
        self.ip_adapter = nn.ModuleDict(layers)
        for name, values in (("mean", CLIP_MEAN), ("deviation", CLIP_DEVIATION)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    @torch.no_grad()
    def tokens(self, pictures: Tensor) -> Tensor:
        """Image tokens [2 B, N, D] of pictures [B, 3, H, W] in 0..1: B of no picture, as guidance takes them, then one of each."""
        side = int(self.encoder.config.image_size)
        resized = F.interpolate(pictures, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
        seen = ((resized - self.mean) / self.deviation).to(self.encoder.dtype)
        found = self.encoder(seen).image_embeds
        both: Tensor = self.image_proj(torch.cat([torch.zeros_like(found), found]))
        return both

    @contextmanager
    def on(self, tokens: Tensor) -> Iterator[None]:
        """Inside the block calls of the network with as many rows hear these tokens [B, N, D]."""
        before = [attention.processor for attention in self._attentions]
        try:
            for attention, layer in zip(self._attentions, self.ip_adapter.values(), strict=True):
                attention.set_processor(_DecoupledAttention(layer, tokens, self.scale))
            yield
        finally:
            for attention, processor in zip(self._attentions, before, strict=True):
                attention.set_processor(processor)


class _Projection(nn.Module):
    """A picture's embedding [B, P] to tokens [B, N, D]."""

    def __init__(self, embedding: int, width: int, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.proj, self.norm = nn.Linear(embedding, tokens * width), nn.LayerNorm(width)

    def forward(self, embedding: Tensor) -> Tensor:
        found: Tensor = self.norm(self.proj(embedding).unflatten(1, (self.tokens, -1)))
        return found


class _KeysAndValues(nn.Module):
    """K' and V' of one attention."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.to_k_ip = nn.Linear(attention.cross_attention_dim, attention.inner_kv_dim, bias=False)
        self.to_v_ip = nn.Linear(attention.cross_attention_dim, attention.inner_kv_dim, bias=False)


class _DecoupledAttention:
    """Equation 5, as diffusers calls what an attention computes."""

    def __init__(self, layer: Any, tokens: Tensor, scale: float) -> None:
        self._layer, self._tokens, self._scale = layer, tokens, scale

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        def heads(values: Tensor) -> Tensor:
            return values.unflatten(2, (attn.heads, -1)).transpose(1, 2)

        text, image = encoder_hidden_states, self._tokens.to(hidden_states)
        query = heads(attn.to_q(hidden_states))
        mask = None
        if attention_mask is not None:
            mask = attn.prepare_attention_mask(attention_mask, text.shape[1], text.shape[0]).unflatten(0, (-1, attn.heads))
        told = F.scaled_dot_product_attention(query, heads(attn.to_k(text)), heads(attn.to_v(text)), attn_mask=mask)
        shown = F.scaled_dot_product_attention(query, heads(self._layer.to_k_ip(image)), heads(self._layer.to_v_ip(image)))
        both = (told + self._scale * shown).transpose(1, 2).flatten(2)
        for layer in attn.to_out:
            both = layer(both)
        return both


def read_image_prompt(network: nn.Module, settings: ImagePromptSettings) -> ImagePrompt:
    """The adapter for that network with the weights that a recipe names; in a dry run without. Raises WeightsError."""
    prompt = ImagePrompt(network, _read_encoder(settings.encoder), settings.tokens, settings.scale)
    if not is_dry():
        tensors, _ = read_weights(settings.adapter)
        found = {name: tensor.float() for name, tensor in tensors.items()}
        adapter = nn.ModuleDict({"image_proj": prompt.image_proj, "ip_adapter": prompt.ip_adapter})
        load_strictly(adapter, found, str(settings.adapter))
    return prompt.requires_grad_(False).eval()


def _read_encoder(folder: Path) -> CLIPVisionModelWithProjection:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    if is_dry():
        return CLIPVisionModelWithProjection(CLIPVisionConfig(**PUBLISHED_ENCODER))
    read: Any = CLIPVisionModelWithProjection.from_pretrained
    try:
        encoder: CLIPVisionModelWithProjection = read(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"holds no CLIP image encoder ({str(error).splitlines()[0]}).",
            where=str(folder),
            way_out="Give the folder `image_encoder` of the IP-Adapter's release, with config.json and model.safetensors.",
        ) from error
    return encoder
