"""Load Prior with the nodes that take its output."""

from __future__ import annotations

import torch
from kintsugi.nodes.one_step import KintsugiDecode, KintsugiEncode
from kintsugi.nodes.prior import KintsugiLoadPrior


def test_a_picture_goes_into_the_latents_of_the_embedded_prior_and_comes_back() -> None:
    (prior,) = KintsugiLoadPrior().load("sd3", "embedded", "fp32", "none")
    ramp = torch.linspace(0.2, 0.8, 64)
    picture = torch.stack([ramp.expand(64, 64), ramp.expand(64, 64).T, torch.full((64, 64), 0.5)], dim=-1)[None]
    (latent,) = KintsugiEncode().encode(prior, picture, 512)
    (back,) = KintsugiDecode().decode(prior, latent, 512)
    assert (back - picture).abs().mean() < 0.02


def test_its_widgets_offer_every_family_and_the_embedded_weights() -> None:
    inputs = KintsugiLoadPrior.INPUT_TYPES()
    assert inputs["required"]["family"][0][:5] == ["sd3", "sd21-vae16", "pixart-alpha", "sdxl", "flux"]
    assert inputs["required"]["weights"][0] == ["auto", "embedded"]
    assert list(inputs["optional"]) == ["quantization"] and inputs["optional"]["quantization"][0][:2] == ["none", "nf4"]
