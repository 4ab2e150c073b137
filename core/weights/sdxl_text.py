"""SDXL's prompts: two CLIP encoders side by side, from a diffusers folder or from a checkpoint that holds both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..errors import WeightsError
from ..models.prompt import PromptEmbedding
from .single_files import read_clip_g, read_clip_l
from .text_networks import TOKENIZERS, build_encoder, penultimate, penultimate_and_pooled, read_encoder, token_ids


def encode_sdxl(folder: Path, text: str) -> PromptEmbedding:
    """Tokens [1, 77, 2048], the penultimate states of both encoders side by side, and the second's projected pooled [1, 1280]."""
    return _encoded(folder, text, folder)


def encode_sdxl_checkpoint(path: Path, text: str, tokenizers: Path | None) -> PromptEmbedding:
    """encode_sdxl() with the encoders of a single file. tokenizers: the folder that has theirs; WeightsError where it is None."""
    if tokenizers is None:
        raise WeightsError(
            "has both text encoders, but their tokenizers were found nowhere.",
            where=str(path),
            way_out="Put the folders tokenizer and tokenizer_2 of SDXL (each with vocab.json, merges.txt, special_tokens_map.json and "
            "tokenizer_config.json) into diffusers/stable-diffusion-xl-base-1.0; kintsugi models fetch sdxl does so.",
        )
    return _encoded(path, text, tokenizers)


def _encoded(place: Path, text: str, tokenizers: Path) -> PromptEmbedding:
    # The first pads prompts with its end token, the second with "!".
    first_ids, second_ids = (token_ids(tokenizers / part, text)[0] for part in TOKENIZERS)
    first = penultimate(_clip_l(place), first_ids)
    second, pooled = penultimate_and_pooled(_clip_g(place), second_ids)
    return PromptEmbedding(torch.cat([first, second], dim=-1), pooled)


def _clip_l(place: Path) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = place / "text_encoder"
    return read_encoder(CLIPTextModel, folder) if place.is_dir() else build_encoder(CLIPTextModel, CLIPTextConfig, read_clip_l(place))


def _clip_g(place: Path) -> Any:
    from transformers import CLIPTextConfig
    from transformers import CLIPTextModelWithProjection as Projected

    folder = place / "text_encoder_2"
    return read_encoder(Projected, folder) if place.is_dir() else build_encoder(Projected, CLIPTextConfig, read_clip_g(place))
