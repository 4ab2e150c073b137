"""FLUX.1's prompts: what CLIP-L says of the whole, and T5's states of 512 tokens; from a folder, a checkpoint or a file for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import WeightsError
from ..models.prompt import PromptEmbedding
from .files import NetworkFile
from .single_files import read_clip_l, read_t5
from .text_networks import TOKENIZERS, build_encoder, last_states, read_encoder, run_encoder, text_dtype, token_ids

# The longest prompt that FLUX.1-dev was trained with; shorter ones are padded, and the padding is seen.
T5_TOKENS = 512


def encode_flux(folder: Path, text: str) -> PromptEmbedding:
    """Tokens [1, 512, 4096], T5's last states, and pooled [1, 768], CLIP-L's final state at the prompt's end."""
    return _encoded(folder, folder, text, folder)


def encode_flux_files(clip_l: Path, text: str, t5: Path, tokenizers: Path | None) -> PromptEmbedding:
    """encode_flux() with the encoders of single files, which may be one. tokenizers: the folder that has theirs; WeightsError where it
    is None."""
    if tokenizers is None:
        raise WeightsError(
            "has a text encoder of FLUX.1, but its tokenizers were found nowhere.",
            where=str(clip_l),
            way_out="Put the folders tokenizer and tokenizer_2 of FLUX.1-dev into diffusers/FLUX.1-dev; kintsugi models fetch flux-dev "
            "does so.",
        )
    return _encoded(clip_l, t5, text, tokenizers)


def _encoded(clip_l: Path, t5: Path, text: str, tokenizers: Path) -> PromptEmbedding:
    first, second = (tokenizers / part for part in TOKENIZERS)
    return PromptEmbedding(_states(t5, token_ids(second, text, T5_TOKENS)[0]), _pooled(clip_l, token_ids(first, text)[0]))


def _pooled(place: Path, ids: Tensor) -> Tensor:
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = place / "text_encoder"
    model = read_encoder(CLIPTextModel, folder) if place.is_dir() else build_encoder(CLIPTextModel, CLIPTextConfig, read_clip_l(place))
    return run_encoder(lambda rows: model(rows).pooler_output, (ids,))


def _states(place: Path, ids: Tensor) -> Tensor:
    from transformers import T5Config, T5EncoderModel

    if place.is_dir():
        return last_states(read_encoder(T5EncoderModel, place / "text_encoder_2"), ids)
    file = read_t5(place)
    model = build_encoder(T5EncoderModel, T5Config, file)
    if text_dtype() == torch.float16:
        _keep_in_float32(model, file)
    return last_states(model, ids)


def _keep_in_float32(t5: Any, file: NetworkFile) -> None:
    """The layers whose sums leave float16's range; transformers does so with folders."""
    for name, layer in t5.named_modules():
        if name.endswith(".wo"):
            layer.weight = nn.Parameter(file.tensors[f"{name}.weight"].to(layer.weight.device, torch.float32), requires_grad=False)
