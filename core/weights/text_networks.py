"""Tokenizers and text encoders of transformers from folders as they are published, and calls of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import MissingPackageError, WeightsError
from ..runtime import current_host, run_model
from .diffusers_folders import read_json, weights_files
from .files import NetworkFile, build_network
from .nf4 import require_bitsandbytes

# What was read in encoders_kept(), by what and from where; None outside.
_kept: ContextVar[dict[tuple[Any, Path], Any] | None] = ContextVar("kintsugi_kept_encoders", default=None)

# Of families with two text encoders, each in the place of its encoder.
TOKENIZERS = ("tokenizer", "tokenizer_2")


@contextmanager
def encoders_kept() -> Iterator[None]:
    """Inside the block the tokenizers and encoders of folders that a prompt was encoded with stay in memory for the next one."""
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def _read_once(read: Callable[[], Any], network: Any, folder: Path) -> Any:
    kept = _kept.get()
    if kept is None:
        return read()
    if (network, folder) not in kept:
        kept[network, folder] = read()
    return kept[network, folder]


def token_ids(folder: Path, text: str, tokens: int | None = None) -> tuple[Tensor, Tensor]:
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
    return _read_once(lambda: _tokenizer(folder), "tokenizer", folder)


def _tokenizer(folder: Path) -> Any:
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
    """A network of that transformers class on the host's device, in its dtype for texts. Raises WeightsError where tensors are missing or
    misshapen, MissingPackageError where they are quantised and the package is missing."""
    return _read_once(lambda: _encoder(network, folder), network, folder)


def _encoder(network: Any, folder: Path) -> Any:
    files = weights_files(folder)
    require_bitsandbytes(read_json(folder / "config.json"), str(folder))
    try:
        model, report = network.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            variant="fp16" if ".fp16." in files[0].name else None,
            dtype=text_dtype(),
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(f"cannot be read as {network.__name__} ({reason}).", where=str(folder), way_out="Copy it again.") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise WeightsError(f"tensor {missing[0]} is missing.", where=str(folder), way_out="Half a folder: copy it again.")
    current_host().hold(model)
    return model.eval()


def build_encoder(network: Any, config: Any, file: NetworkFile) -> Any:
    """A network of that transformers class and class of its configuration on the host's device, in its dtype. Raises WeightsError."""
    with torch.device("meta"):
        is_wrapped = hasattr(network(config(**file.config)), "text_model")
    # Since transformers 5.6 a CLIPTextModel no longer keeps its parts below that name.
    tensors = file.tensors if is_wrapped else {name.removeprefix("text_model."): tensor for name, tensor in file.tensors.items()}
    built = build_network(lambda: network(config(**file.config)), tensors, file.where, text_dtype())
    current_host().hold(built)
    return built


def text_dtype() -> torch.dtype:
    """What text encoders compute in: the host's dtype, or the one it was told for them."""
    return current_host().text_dtype or current_host().dtype


def last_states(model: Any, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """The last states [1, N, D] of a T5 encoder; padding is seen where there is no mask [1, N]."""
    if mask is None:
        return run_encoder(lambda rows: model(rows).last_hidden_state, (ids,))
    return run_encoder(lambda rows, kept: model(rows, attention_mask=kept).last_hidden_state, (ids, mask))


def penultimate(model: Any, ids: Tensor) -> Tensor:
    """States [1, N, D] of a CLIP encoder before its last layer, without the final norm."""
    return run_encoder(lambda rows: model(rows, output_hidden_states=True).hidden_states[-2], (ids,))


def penultimate_and_pooled(model: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Those of a CLIPTextModelWithProjection, and its projected pooled [1, P]."""

    def packed(rows: Tensor) -> Tensor:
        output = model(rows, output_hidden_states=True)
        return torch.cat([output.hidden_states[-2].flatten(1), output.text_embeds], dim=1)

    width, pooled = model.config.hidden_size, model.config.projection_dim
    states, projected = run_encoder(packed, (ids,)).split([ids.shape[1] * width, pooled], dim=1)
    return states.unflatten(1, (ids.shape[1], width)), projected


@torch.inference_mode()
def run_encoder(call: Callable[..., Tensor], rows: tuple[Tensor, ...]) -> Tensor:
    """call(*rows) on the host's device, float32 on the CPU."""
    return run_model(call, *(row.to(current_host().device) for row in rows)).float().cpu()
