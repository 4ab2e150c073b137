"""Prompts to embeddings, family by family, with text encoders that are read for a prompt and given back after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import OutOfMemoryError, WeightsError
from ..models.prompt import PromptEmbedding
from ..runtime import is_out_of_memory
from .diffusers_folders import has_network
from .flux_text import encode_flux, encode_flux_files
from .sdxl_text import encode_sdxl, encode_sdxl_checkpoint
from .single_files import FLUX_CLIP_L, FLUX_T5, SDXL_CLIP_G, SDXL_CLIP_L, has_text_parts
from .text_networks import last_states, penultimate_and_pooled, read_encoder, run_encoder, token_ids

# An embedding of Flux has 8 MB, and lists of prompts may be long.
REMEMBERED = 64
# SD3 was trained with exactly this many tokens of T5; PixArt with 120, InstaRevive with 300.
SD3_T5_TOKENS = 256
PIXART_TOKENS = 300

_PARTS = {"sd3": ("", "_2"), "sd21-vae16": ("",), "pixart-alpha": ("",), "sdxl": ("", "_2"), "flux": ("", "_2")}
_PREFIXES = {"sdxl": (SDXL_CLIP_L, SDXL_CLIP_G), "flux": (FLUX_CLIP_L, FLUX_T5)}


def has_text_encoders(place: Path, family: str) -> bool:
    """Whether a prompt can be encoded from that folder, or with the encoders of that file; SD3's T5 is looked for when a prompt
    is, and so are the tokenizers of single files."""
    if place.is_file():
        return family in _PREFIXES and has_text_parts(place, _PREFIXES[family])
    return all(has_network(place / f"text_encoder{part}") and (place / f"tokenizer{part}").is_dir() for part in _PARTS[family])


@dataclass(frozen=True)
class LazyPromptEncoder:
    """A PromptEncoder of one family that reads its networks for a new prompt and remembers the last embeddings."""

    place: Path
    encode: Callable[[Path, str], PromptEmbedding]
    known: dict[str, PromptEmbedding] = field(default_factory=dict, repr=False)

    def __call__(self, text: str) -> PromptEmbedding:
        """The embedding, float32 on the CPU. Raises WeightsError and OutOfMemoryError."""
        if text not in self.known:
            found = self._encoded(text)
            if len(self.known) == REMEMBERED:
                del self.known[next(iter(self.known))]
            self.known[text] = found
        return self.known[text]

    def _encoded(self, text: str) -> PromptEmbedding:
        try:
            return self.encode(self.place, text)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                "the text encoders do not fit the memory.",
                where=str(self.place),
                way_out="Close other programs, or leave the prompt empty.",
            ) from error
        finally:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def prompt_encoder(place: Path, family: str, tokenizers: Path | None = None, second: Path | None = None) -> LazyPromptEncoder:
    """The encoder of that family over a folder's tokenizer and text_encoder subfolders; nothing is read yet.

    place: may be a checkpoint of SDXL or Flux; its tokenizers then lie in the folder tokenizers, or nowhere. Flux's encoders may lie in
    two files: second is T5's then.
    """
    if place.is_dir():
        return LazyPromptEncoder(place, _ENCODERS[family])
    if family == "flux":
        return LazyPromptEncoder(place, partial(encode_flux_files, t5=second or place, tokenizers=tokenizers))
    return LazyPromptEncoder(place, partial(encode_sdxl_checkpoint, tokenizers=tokenizers))


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
    (first, first_pooled), (second, second_pooled) = (_sd3_clip(folder, part, text) for part in ("", "_2"))
    long, _ = _t5_states(folder, "_3", text, SD3_T5_TOKENS, masked=False)
    short = torch.cat([first, second], dim=-1)
    short = F.pad(short, (0, long.shape[-1] - short.shape[-1]))
    return PromptEmbedding(torch.cat([short, long], dim=1), torch.cat([first_pooled, second_pooled], dim=-1))


def _sd3_clip(folder: Path, part: str, text: str) -> tuple[Tensor, Tensor]:
    """Penultimate states [1, 77, D] and projected pooled [1, P] of the encoder in text_encoder<part>."""
    from transformers import CLIPTextModelWithProjection

    ids, _ = token_ids(folder / f"tokenizer{part}", text)
    return penultimate_and_pooled(read_encoder(CLIPTextModelWithProjection, folder / f"text_encoder{part}"), ids)


def encode_sd21(folder: Path, text: str) -> PromptEmbedding:
    """Tokens [1, 77, 1024]: the last state after the final norm of an encoder that was shortened by its last layer."""
    from transformers import CLIPTextModel

    ids, _ = token_ids(folder / "tokenizer", text)
    model = read_encoder(CLIPTextModel, folder / "text_encoder")
    return PromptEmbedding(run_encoder(lambda rows: model(rows).last_hidden_state, (ids,)))


def encode_pixart(folder: Path, text: str, tokens: int = PIXART_TOKENS) -> PromptEmbedding:
    """Tokens [1, N, 4096] of T5 and their mask [1, N]; PixArt was trained on small letters."""
    states, mask = _t5_states(folder, "", text.lower().strip(), tokens, masked=True)
    return PromptEmbedding(states, mask=mask)


_ENCODERS: dict[str, Callable[[Path, str], PromptEmbedding]] = {
    "sd3": encode_sd3,
    "sd21-vae16": encode_sd21,
    "pixart-alpha": encode_pixart,
    "sdxl": encode_sdxl,
    "flux": encode_flux,
}


def _t5_states(folder: Path, part: str, text: str, tokens: int, masked: bool) -> tuple[Tensor, Tensor]:
    """Last states [1, N, D] of the T5 encoder in text_encoder<part> and the mask [1, N] of its tokens.

    masked: whether the encoder itself sees no padding.
    """
    from transformers import T5EncoderModel

    ids, mask = token_ids(folder / f"tokenizer{part}", text, tokens)
    model = read_encoder(T5EncoderModel, folder / f"text_encoder{part}")
    return last_states(model, ids, mask if masked else None), mask.float()
