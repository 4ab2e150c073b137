"""The text encoder of the embedded priors: a prompt becomes an embedding of SDXL's form that is its own and means nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..runtime import run_model
from .prompt import PromptEmbedding

PADDING = 256


class ByteTextEncoder(nn.Module):
    """tokens: how many bytes of a prompt count; width, pooled: D and P of its embedding.

    A token is the vector of its byte plus that of its place. Both stay as they were drawn: what a U-Net makes of them is the
    U-Net's to learn.
    """

    def __init__(self, tokens: int, width: int, pooled: int) -> None:
        super().__init__()
        self.bytes = nn.Embedding(PADDING + 1, width)
        self.places = nn.Embedding(tokens, width)
        self.pooling = nn.Linear(width, pooled, bias=False)
        self.requires_grad_(False)

    def forward(self, ids: Tensor) -> Tensor:
        """Tokens [B, N, D] of bytes [B, N] in 0..255, and 256 behind the prompt's end."""
        found: Tensor = self.bytes(ids) + self.places.weight
        return found

    @torch.inference_mode()
    def encode(self, text: str) -> PromptEmbedding:
        """Tokens [1, N, D] and pooled [1, P] of a prompt, float32 on the CPU; bytes beyond the last token are cut off."""
        count = self.places.num_embeddings
        ids = list(text.encode("utf-8"))[:count]
        padded = torch.tensor([ids + [PADDING] * (count - len(ids))], device=self.places.weight.device)
        tokens = run_model(self, padded)
        # Divided by the root, so that the sum of independent vectors is as large as one of them.
        pooled = run_model(self.pooling, tokens.sum(dim=1) / count**0.5)
        return PromptEmbedding(tokens.float().cpu(), pooled.float().cpu())
