"""A sentence about a picture, for restorers whose prompt it becomes.

"BLIP: Bootstrapping Language-Image Pre-training" (arXiv 2201.12086), as InstaRevive's paper captions its pictures: an image
encoder and a text decoder, searched with three beams.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..runtime import current_host, require_finite, run_model

if TYPE_CHECKING:
    from transformers import BlipForConditionalGeneration

BEAMS = 3
LONGEST = 20  # tokens of a caption, as in BLIP's own evaluation


@dataclass(frozen=True)
class Captioner:
    """The CAPTIONER socket: BLIP with what turns pictures into its input and its tokens into words."""

    name: str
    network: BlipForConditionalGeneration
    image_processor: Any
    tokenizer: Any

    @torch.inference_mode()
    def describe(self, pictures: Tensor) -> list[str]:
        """One caption per picture [B, H, W, 3] in 0..1, any size; nothing is drawn, so the same picture has the same caption."""
        require_finite(pictures, "The picture")
        levels = (pictures[..., :3].clamp(0, 1) * 255).round().byte().cpu().numpy()
        # Told where the colours are, the processor does not take a picture of 3 rows for one with its colours first.
        prepared = self.image_processor(list(levels), input_data_format="channels_last", return_tensors="pt").pixel_values
        parameter = next(self.network.parameters())
        tokens = run_model(self._tokens, prepared.to(current_host().device, parameter.dtype))
        return [text.strip() for text in self.tokenizer.batch_decode(tokens.cpu(), skip_special_tokens=True)]

    def _tokens(self, prepared: Tensor) -> Tensor:
        """Token ids [B, LONGEST] of prepared pictures [B, 3, S, S], padded where a caption ends before."""
        found = self.network.generate(pixel_values=prepared, num_beams=BEAMS, max_new_tokens=LONGEST, do_sample=False)
        # The first token is what every caption starts from.
        return F.pad(found[:, 1:], (0, 1 + LONGEST - found.shape[1]), value=self.tokenizer.pad_token_id)
