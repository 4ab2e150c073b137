"""Tiny random text encoders and tokenizers in folders of the published form."""

from __future__ import annotations

import json
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5Tokenizer

CLIP_TOKENS = 77


def write_clip_tokenizer(folder: Path, padding: str = "<|endoftext|>") -> None:
    """Letters for words, in the files that Stable Diffusion's releases have."""
    folder.mkdir(parents=True)
    symbols = ["!", ",", *ascii_lowercase, *(f"{letter}</w>" for letter in ascii_lowercase), ",</w>", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({symbol: index for index, symbol in enumerate(symbols)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": padding, "unk_token": "<|endoftext|>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": CLIP_TOKENS, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def clip_config(width: int, layers: int = 2, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "vocab_size": 64, "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers, "num_attention_heads": 2,
        "max_position_embeddings": CLIP_TOKENS, "projection_dim": width, "bos_token_id": 56, "eos_token_id": 57, "pad_token_id": 57,
    }  # fmt: skip
    return CLIPTextConfig(**{**settings, **changes})


def write_t5(folder: Path, part: str = "", width: int = 40) -> None:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), *((symbol, -2.0) for symbol in ["▁", ",", *ascii_lowercase])]
    T5Tokenizer(vocab=pieces, extra_ids=0).save_pretrained(folder / f"tokenizer{part}")
    torch.manual_seed(3)
    config = T5Config(vocab_size=32, d_model=width, d_kv=8, d_ff=16, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu")
    T5EncoderModel(config).save_pretrained(folder / f"text_encoder{part}")


def write_sd3_encoders(folder: Path, t5: bool = True) -> None:
    """CLIP of widths 8 and 12 and, where wanted, a T5 of width 40."""
    for part, width in (("", 8), ("_2", 12)):
        write_clip_tokenizer(folder / f"tokenizer{part}")
        torch.manual_seed(width)
        CLIPTextModelWithProjection(clip_config(width)).save_pretrained(folder / f"text_encoder{part}")
    if t5:
        write_t5(folder, "_3")


def write_sd21_encoder(folder: Path, width: int = 12) -> None:
    write_clip_tokenizer(folder / "tokenizer")
    torch.manual_seed(1)
    CLIPTextModel(clip_config(width)).save_pretrained(folder / "text_encoder")
