"""Prompt embeddings for training: every text is encoded once, kept on disk, and stacked into batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..core.errors import BadValueError
from ..core.models.prompt import PromptEmbedding, PromptEncoder
from ..core.weights.files import read_weights, write_weights
from ..core.weights.text_networks import encoders_kept

# A training set has more captions than fit the memory, and an embedding of Flux has 8 MB.
REMEMBERED = 256


class PromptCache:
    """encoder: what makes an embedding of a text, or None where all are on disk. name: which encoder that is, with its weights: the
    embeddings of another are never taken for its. folder: where they are kept, or None for the memory alone.

    Several processes may share the folder: a file appears whole, and whoever writes one last writes the same.
    """

    def __init__(self, encoder: PromptEncoder | None, name: str, folder: Path | None) -> None:
        self._encoder, self._name, self._folder = encoder, name, folder
        self._known: dict[str, PromptEmbedding] = {}

    def batch(self, texts: Sequence[str]) -> PromptEmbedding:
        """tokens [B, N, D], pooled [B, P] and mask [B, N] of the texts, on the CPU, as the encoder made them.

        Raises BadValueError for a text that is not kept when there is no encoder, and for embeddings of unequal lengths, which an
        encoder that pads its texts does not make.
        """
        self.fill(texts)
        return _stacked([self._embedding(text) for text in texts], self._name)

    def fill(self, texts: Iterable[str]) -> None:
        """Encode those of the texts that are not kept yet, reading the networks once. Raises BadValueError when there is no encoder."""
        with encoders_kept():
            for text in dict.fromkeys(texts):
                if not self._is_kept(text):
                    self._keep(text, self._encoded(text))

    def release(self) -> None:
        """Let go of the encoder and its memory; from now on only kept texts are known."""
        self._encoder = None

    def _embedding(self, text: str) -> PromptEmbedding:
        """Of a kept text."""
        if self._folder is not None and text not in self._known:
            self._remember(text, PromptEmbedding(**read_weights(self._folder / self._file_name(text))[0]))
        return self._known[text]

    def _is_kept(self, text: str) -> bool:
        return text in self._known or (self._folder is not None and (self._folder / self._file_name(text)).exists())

    def _keep(self, text: str, embedding: PromptEmbedding) -> None:
        if self._folder is not None:
            write_weights(self._folder / self._file_name(text), _tensors(embedding), {"encoder": self._name, "text": text}, dtype=None)
        self._remember(text, embedding)

    def _remember(self, text: str, embedding: PromptEmbedding) -> None:
        if self._folder is not None and len(self._known) == REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[text] = embedding

    def _encoded(self, text: str) -> PromptEmbedding:
        if self._encoder is None:
            raise BadValueError(
                f"the text {text[:80]!r} is not among the kept prompt embeddings, and there is no text encoder.",
                where=self._name,
                way_out="Give the base with its text encoders, or recipes without captions.",
            )
        return self._encoder(text)

    def _file_name(self, text: str) -> str:
        return f"{hashlib.sha256(json.dumps([self._name, text]).encode()).hexdigest()}.safetensors"


def _tensors(embedding: PromptEmbedding) -> dict[str, Tensor]:
    found = {"tokens": embedding.tokens, "pooled": embedding.pooled, "mask": embedding.mask}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def _stacked(embeddings: Sequence[PromptEmbedding], encoder: str) -> PromptEmbedding:
    """Rows below each other."""
    rows = [_tensors(embedding) for embedding in embeddings]
    shapes = [{name: list(tensor.shape) for name, tensor in row.items()} for row in rows]
    odd = next((shape for shape in shapes if shape != shapes[0]), None)
    if odd is not None:
        raise BadValueError(
            f"two prompts have embeddings of unlike shapes: {shapes[0]} and {odd}.",
            where=encoder,
            way_out="Use an encoder that pads every text to one length.",
        )
    return PromptEmbedding(**{name: torch.cat([row[name] for row in rows]) for name in rows[0]})
