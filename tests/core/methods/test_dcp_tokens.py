"""What the image encoder is shown, and what comes of it."""

from __future__ import annotations

import pytest
import torch
from kintsugi.core.methods.dcp_tokens import CROPS, Crop, image_tokens
from transformers import Dinov2Config, Dinov2Model


@pytest.fixture(scope="module")
def encoder() -> Dinov2Model:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 14, "image_size": 56}
    return Dinov2Model(Dinov2Config(**sizes)).eval()


@pytest.mark.parametrize(("crop", "count"), [("published", 257), ("whole image", 1 + 16 * 24)])
def test_tokens_are_those_of_the_class_and_of_every_patch(encoder: Dinov2Model, crop: Crop, count: int) -> None:
    tokens, nothing = image_tokens(encoder, torch.rand(2, 100, 150, 3), crop)
    assert tokens.shape == (2, count, 16) and nothing.shape == (1, count, 16)


@pytest.mark.parametrize("crop", CROPS)
def test_a_picture_of_a_batch_has_its_own_tokens(encoder: Dinov2Model, crop: Crop) -> None:
    pictures = torch.rand(2, 64, 64, 3)
    together, _ = image_tokens(encoder, pictures, crop)
    assert torch.equal(together[1:], image_tokens(encoder, pictures[1:], crop)[0])


def test_only_the_whole_image_shows_the_outermost_ring(encoder: Dinov2Model) -> None:
    picture = torch.rand(1, 256, 256, 3)
    framed = picture.clone()
    framed[:, :8] = 0
    seen = {crop: torch.equal(*(image_tokens(encoder, one, crop)[0] for one in (picture, framed))) for crop in CROPS}
    assert seen == {"published": True, "whole image": False}
