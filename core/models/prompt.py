"""What a text encoder made of a prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PromptEmbedding:
    """tokens [1, N, D]; pooled [1, P] where the family has one; mask [1, N] float, 1 on tokens that are not padding."""

    tokens: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None


# Reads its networks when it is first asked, and gives their memory back afterwards.
PromptEncoder = Callable[[str], PromptEmbedding]
