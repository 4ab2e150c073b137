"""What travels on a LATENT wire is what the VAE's encoder says and its decoder takes, as in ComfyUI."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kintsugi.core.methods.coding import decode_latent, encode_picture
from kintsugi.core.models.codec import LatentCodec
from kintsugi.core.models.mini import build_vae
from kintsugi.core.models.prior import Prior
from kintsugi.nodes.latents import scaled, with_samples
from kintsugi.nodes.one_step import KintsugiDecode, KintsugiEncode
from torch import Tensor

# What each family's networks see of z: factor * (z - shift).
NUMBERS = {"sdxl": (0.13025, None), "sd3": (1.5305, 0.0609), "flux": (0.3611, 0.1159), "pixart-alpha": (0.18215, None)}


def prior_of(family: str) -> Prior:
    factor, shift = NUMBERS[family]
    torch.manual_seed(0)
    channels = 16 if shift else 4
    vae = build_vae(
        {
            "latent_channels": channels, "block_out_channels": [16, 32], "norm_num_groups": 4, "layers_per_block": 1,
            "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2,
            "scaling_factor": factor, "shift_factor": shift,
        }
    )  # fmt: skip
    return Prior(family, LatentCodec(vae.eval()))


@pytest.fixture
def picture() -> Tensor:
    return torch.rand(1, 32, 48, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", NUMBERS)
@torch.inference_mode()
def test_encode_gives_what_the_vae_says_and_decode_takes_it(family: str, picture: Tensor) -> None:
    prior = prior_of(family)
    vae = prior.codec.vae
    (latent,) = KintsugiEncode().encode(prior, picture, 512)
    said = vae.encode(2 * picture.permute(0, 3, 1, 2) - 1).latent_dist.mode()
    assert torch.allclose(latent["samples"], said, atol=1e-5 * float(said.abs().max()))
    (decoded,) = KintsugiDecode().decode(prior, {"samples": said}, 512)
    expected = (vae.decode(said).sample / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    assert torch.allclose(decoded, expected, atol=1e-5)


@pytest.mark.parametrize("family", NUMBERS)
def test_networks_see_the_scaled_latent_of_a_wire(family: str, picture: Tensor) -> None:
    prior = prior_of(family)
    (latent,) = KintsugiEncode().encode(prior, picture, 512)
    assert torch.allclose(scaled(prior, latent), encode_picture(prior, picture, 512), rtol=1e-4, atol=1e-5)


def test_latents_of_other_nodes_may_be_in_fewer_bits_and_keep_what_else_they_carry(picture: Tensor) -> None:
    prior = prior_of("flux")
    seen = encode_picture(prior, picture, 512)
    latent = with_samples({"batch_index": [3]}, prior, seen)
    assert latent["batch_index"] == [3]
    halved = {"samples": latent["samples"].half()}
    assert scaled(prior, halved).dtype == torch.float32
    difference = decode_latent(prior, scaled(prior, halved), 512) - decode_latent(prior, seen, 512)
    assert difference.abs().max() < 1 / 255


def test_the_families_numbers_are_those_that_are_documented() -> None:
    table = (Path(__file__).parents[2] / "docs" / "latents.md").read_text(encoding="utf-8")
    for family, (factor, shift) in NUMBERS.items():
        assert f"| {family} | {16 if shift else 4} | {factor} | {shift or 0} |" in table
