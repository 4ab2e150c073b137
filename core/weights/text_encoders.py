"""Prompts to embeddings with the text encoders of a diffusers folder, which are read for a prompt and given back after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import MissingPackageError, OutOfMemoryError, WeightsError
from ..models.prompt import PromptEmbedding
from ..runtime import current_host, is_out_of_memory, run_model
from .diffusers_folders import has_network, weights_files

# SD3 was trained with exactly this many tokens of T5; PixArt with 120, InstaRevive with 300.
SD3_T5_TOKENS = 256
PIXART_TOKENS = 300

_PARTS = {"sd3": ("", "_2"), "sd21-vae16": ("",), "pixart-alpha": ("",)}


def has_text_encoders(folder: Path, family: str) -> bool:
    """Whether a prompt can be encoded from that folder; SD3's T5 is looked for when a prompt is."""
    return all(has_network(folder / f"text_encoder{part}") and (folder / f"tokenizer{part}").is_dir() for part in _PARTS[family])


@dataclass(frozen=True)
class FolderPromptEncoder:
    """A PromptEncoder of one family that reads its networks for a new prompt and remembers the embeddings."""

    folder: Path
    encode: Callable[[Path, str], PromptEmbedding]
    known: dict[str, PromptEmbedding] = field(default_factory=dict, repr=False)

    def __call__(self, text: str) -> PromptEmbedding:
        """The embedding, float32 on the CPU. Raises WeightsError and OutOfMemoryError."""
        if text not in self.known:
            self.known[text] = self._encoded(text)
        return self.known[text]

    def _encoded(self, text: str) -> PromptEmbedding:
        try:
            return self.encode(self.folder, text)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                "the text encoders do not fit the memory.",
                where=str(self.folder),
                way_out="Close other programs, or leave the prompt empty.",
            ) from error
        finally:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def prompt_encoder(folder: Path, family: str) -> FolderPromptEncoder:
    """The encoder of that family over the folder's tokenizer and text_encoder subfolders; nothing is read yet."""
    return FolderPromptEncoder(folder, _ENCODERS[family])


def encode_sd3(folder: Path, text: str) -> PromptEmbedding:
    """Tokens [1, 77 + 256, 4096] and pooled [1, 2048]: two CLIP encoders side by side, zeros up to T5's width, then T5.

    TSD-SR's stored embeddings were made so: penultimate CLIP states, T5 padded in full and without a mask.
    """
    if not has_network(folder / "text_encoder_3"):
        raise WeightsError(
            "has no T5 text encoder (text_encoder_3), which belongs to SD3's prompts.",
            where=str(folder),
            way_out="Copy text_encoder_3 and tokenizer_3 of the release there, or keep the stored prompt.",
        )
    (first, first_pooled), (second, second_pooled) = (_clip_states(folder, part, text) for part in ("", "_2"))
    long, _ = _t5_states(folder, "_3", text, SD3_T5_TOKENS, masked=False)
    short = torch.cat([first, second], dim=-1)
    short = F.pad(short, (0, long.shape[-1] - short.shape[-1]))
    return PromptEmbedding(torch.cat([short, long], dim=1), torch.cat([first_pooled, second_pooled], dim=-1))


def encode_sd21(folder: Path, text: str) -> PromptEmbedding:
    """Tokens [1, 77, 1024]: the last state after the final norm of an encoder that was shortened by its last layer."""
    from transformers import CLIPTextModel

    ids, _ = _token_ids(folder / "tokenizer", text, None)
    model = read_encoder(CLIPTextModel, folder / "text_encoder")
    return PromptEmbedding(_run(lambda rows: model(rows).last_hidden_state, (ids,), model))


def encode_pixart(folder: Path, text: str, tokens: int = PIXART_TOKENS) -> PromptEmbedding:
    """Tokens [1, N, 4096] of T5 and their mask [1, N]; PixArt was trained on small letters."""
    states, mask = _t5_states(folder, "", text.lower().strip(), tokens, masked=True)
    return PromptEmbedding(states, mask=mask)


_ENCODERS: dict[str, Callable[[Path, str], PromptEmbedding]] = {
    "sd3": encode_sd3,
    "sd21-vae16": encode_sd21,
    "pixart-alpha": encode_pixart,
}


def _clip_states(folder: Path, part: str, text: str) -> tuple[Tensor, Tensor]:
    """Penultimate states [1, 77, D] and projected pooled [1, P] of the encoder in text_encoder<part>."""
    from transformers import CLIPTextModelWithProjection

    ids, _ = _token_ids(folder / f"tokenizer{part}", text, None)
    place = folder / f"text_encoder{part}"
    model = read_encoder(CLIPTextModelWithProjection, place)

    def packed(rows: Tensor) -> Tensor:
        output = model(rows, output_hidden_states=True)
        return torch.cat([output.hidden_states[-2].flatten(1), output.text_embeds], dim=1)

    states, pooled = _run(packed, (ids,), model).split([ids.shape[1] * model.config.hidden_size, model.config.projection_dim], dim=1)
    return states.unflatten(1, (ids.shape[1], -1)), pooled


def _t5_states(folder: Path, part: str, text: str, tokens: int, masked: bool) -> tuple[Tensor, Tensor]:
    """Last states [1, N, D] of the T5 encoder in text_encoder<part> and the mask [1, N] of its tokens.

    masked: whether the encoder itself sees no padding.
    """
    from transformers import T5EncoderModel

    ids, mask = _token_ids(folder / f"tokenizer{part}", text, tokens)
    model = read_encoder(T5EncoderModel, folder / f"text_encoder{part}")
    states = _run(lambda rows, kept: model(rows, attention_mask=kept if masked else None).last_hidden_state, (ids, mask), model)
    return states, mask.float()


def _token_ids(folder: Path, text: str, tokens: int | None) -> tuple[Tensor, Tensor]:
    """Ids and mask [1, N] int64, cut or padded to that number of tokens, or to what the tokenizer was made for."""
    tokenizer = read_tokenizer(folder)
    length = tokens or tokenizer.model_max_length
    encoded = tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return encoded.input_ids, encoded.attention_mask


def _require_sentencepiece(folder: Path) -> None:
    """PixArt's release has its tokenizer in this form alone; transformers reads it with a package of Google's."""
    needed = (folder / "spiece.model").is_file() and not (folder / "tokenizer.json").is_file()
    if needed and find_spec("sentencepiece") is None:
        raise MissingPackageError(
            "its tokenizer is a SentencePiece model, which the package sentencepiece reads.",
            where=str(folder),
            way_out="Install sentencepiece and protobuf, or copy the tokenizer.json of another T5 v1.1 there, such as SD3's tokenizer_3.",
        )


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder in transformers' layout. Raises WeightsError."""
    from transformers import AutoTokenizer

    _require_sentencepiece(folder)
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(
            f"cannot be read as a tokenizer ({reason}).",
            where=str(folder),
            way_out="Copy the folder of the release again.",
        ) from error


def read_encoder(network: Any, folder: Path) -> Any:
    """A network of that transformers class on the host's device, in its dtype. Raises WeightsError where tensors are missing or
    misshapen."""
    weights_files(folder)
    try:
        model, report = network.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=current_host().dtype, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(f"cannot be read as {network.__name__} ({reason}).", where=str(folder), way_out="Copy it again.") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise WeightsError(f"tensor {missing[0]} is missing.", where=str(folder), way_out="Half a folder: copy it again.")
    return model.to(current_host().device).eval()


@torch.inference_mode()
def _run(call: Callable[..., Tensor], rows: tuple[Tensor, ...], model: Any) -> Tensor:
    """call(*rows) on the model's device, float32 on the CPU."""
    return run_model(call, *(row.to(model.device) for row in rows)).float().cpu()
