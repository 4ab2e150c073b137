"""A prior of each family loads from what is published, or from what is embedded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from flux_releases import FLUX_CONFIG
from kintsugi.core.errors import BadValueError, WeightsError
from kintsugi.core.methods.coding import decode_latent, encode_picture
from kintsugi.core.models.offload import OFFLOADS, Offload
from kintsugi.core.runtime import LocalHost
from kintsugi.core.weights import families
from kintsugi.core.weights.embedded import PRIORS
from kintsugi.core.weights.files import read_weights, write_weights
from kintsugi.core.weights.priors import load_prior, read_prior, read_vae
from published_layouts import PIXART_CONFIG, SD3_CONFIG, UNET_CONFIG, random_network, vae_config, write_folder
from sdxl_layouts import SDXL_CONFIG

FAMILIES: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "sd3": ("transformer", "SD3Transformer2DModel", SD3_CONFIG, 16),
    "sd21-vae16": ("unet", "UNet2DConditionModel", UNET_CONFIG, 16),
    "pixart-alpha": ("transformer", "PixArtTransformer2DModel", PIXART_CONFIG, 4),
    "sdxl": ("unet", "UNet2DConditionModel", SDXL_CONFIG, 4),
    "flux": ("transformer", "FluxTransformer2DModel", FLUX_CONFIG, 16),
}


def folder_of(family: str, models: Path) -> Path:
    component, network, config, channels = FAMILIES[family]
    parts = {component: random_network(network, config), "vae": random_network("AutoencoderKL", vae_config(channels))}
    return write_folder(models / "diffusers" / "mine", parts)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_latent_of_every_family_is_scaled_as_its_folder_says(host: LocalHost, family: str) -> None:
    folder_of(family, host.folders.models)
    prior, picture = load_prior(family), torch.rand(1, 16, 16, 3)
    latent = encode_picture(prior, picture, 512)
    plain = prior.codec.vae.encode(2 * picture.movedim(-1, 1) - 1).latent_dist.mode()
    assert prior.family == family and latent.shape == (1, FAMILIES[family][3], 8, 8)
    assert torch.allclose(latent, 0.5 * (plain - 0.25), atol=1e-5 * float(plain.detach().abs().max()))
    assert decode_latent(prior, latent, 512).shape == picture.shape


@pytest.mark.parametrize("family", FAMILIES)
def test_the_denoiser_is_read_when_it_is_asked_for_and_once(host: LocalHost, family: str) -> None:
    folder = folder_of(family, host.folders.models)
    component, class_name, config, _ = FAMILIES[family]
    prior = load_prior(family)
    weights = folder / component / "diffusion_pytorch_model.safetensors"
    hidden = weights.rename(weights.with_suffix(".away"))
    assert prior.denoiser is not None
    with pytest.raises(WeightsError, match="has no weights"):
        prior.denoiser()
    hidden.rename(weights)
    network = prior.denoiser()
    assert prior.denoiser() is network
    expected = random_network(class_name, config).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("offload", OFFLOADS)
def test_a_prior_is_the_same_under_every_offload(host: LocalHost, offload: Offload) -> None:
    folder_of("sd3", host.folders.models)
    picture = torch.rand(1, 16, 16, 3)
    expected = encode_picture(load_prior("sd3"), picture, 512)
    assert torch.equal(encode_picture(load_prior("sd3", offload=offload), picture, 512), expected)


def test_a_prior_says_how_its_denoiser_computes(host: LocalHost) -> None:
    folder_of("sd3", host.folders.models)
    for family, weights in (("sd3", "auto"), ("sd3", "embedded"), ("sdxl", "embedded")):
        prior = load_prior(family, weights, "bf16", "group")
        assert (prior.dtype, prior.offload) == (torch.bfloat16, "group")


def test_every_family_has_an_embedded_prior_and_others_are_refused() -> None:
    assert set(PRIORS) == set(families.FAMILIES)
    with pytest.raises(BadValueError, match="there is no prior family 'sd9'"):
        load_prior("sd9", "embedded")


@pytest.mark.parametrize("family", PRIORS)
def test_an_embedded_prior_is_of_its_family_and_reads_prompts(family: str) -> None:
    prior = load_prior(family, "embedded")
    assert prior.family == family and prior.denoiser is not None
    assert type(prior.denoiser()).__name__ == families.family_of(family).network
    prompt, other = prior.encode_prompt("a clean photo"), prior.encode_prompt("")
    assert prompt.tokens.shape == other.tokens.shape and not torch.equal(prompt.tokens, other.tokens)


@pytest.mark.parametrize("offload", OFFLOADS)
def test_the_embedded_prior_of_sdxl_denoises_under_every_offload(offload: Offload) -> None:
    prior = load_prior("sdxl", "embedded", offload=offload)
    assert prior.denoiser is not None and prior.schedule is not None
    unet: Any = prior.denoiser()
    assert unet is prior.denoiser()
    prompt, rows = prior.encode_prompt("a clean photo"), torch.tensor([500])
    latent = encode_picture(prior, torch.rand(1, 32, 32, 3), 512)
    conditions = {"text_embeds": prompt.pooled, "time_ids": torch.tensor([[32.0, 32, 0, 0, 32, 32]])}
    with torch.inference_mode():
        eps = unet(latent, rows, encoder_hidden_states=prompt.tokens, added_cond_kwargs=conditions).sample
    clean = prior.schedule.clean(latent, eps, rows, "epsilon")
    assert clean.shape == latent.shape and clean.isfinite().all()
    assert decode_latent(prior, clean, 512).shape == (1, 32, 32, 3)


def test_a_file_of_ours_tells_the_largest_picture_that_its_denoiser_was_trained_on(tmp_path: Path) -> None:
    tensors, config = read_weights(PRIORS["flux"])
    write_weights(tmp_path / "bounded.safetensors", tensors, {**config, "largest_side": 40}, None)
    write_weights(
        tmp_path / "unbounded.safetensors", tensors, {name: told for name, told in config.items() if name != "largest_side"}, None
    )
    bounded, unbounded = (read_prior(tmp_path / f"{name}.safetensors", torch.float32, "none") for name in ("bounded", "unbounded"))
    assert bounded.largest_side == 40 and unbounded.largest_side is None
    assert bounded.bounded(1024) == 40 * bounded.codec.downscale and unbounded.bounded(1024) == 1024


@pytest.mark.parametrize("family", PRIORS)
def test_auto_takes_the_embedded_prior_where_nothing_is_found(family: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "kintsugi"):
        assert load_prior(family).family == family
    assert f"Prior {family}: the small embedded one." in caplog.text


def test_embedded_and_names_are_taken_as_they_are_said(host: LocalHost) -> None:
    folder_of("sd3", host.folders.models)
    assert [load_prior("sd3", weights).codec.downscale for weights in ("embedded", "auto")] == [4, 2]
    assert load_prior("sd3", "diffusers/mine", "bf16").codec.vae.dtype == torch.bfloat16
    with pytest.raises(WeightsError, match=r"no prior is named 'diffusers/other'"):
        load_prior("sd3", "diffusers/other")


def test_a_vae_that_does_not_fit_its_configuration_is_refused_by_name(host: LocalHost) -> None:
    folder = write_folder(folder_of("sd3", host.folders.models), {}, latent_channels=8)
    with pytest.raises(WeightsError, match=r"tensor decoder\.conv_in\.weight is \[16, 16, 3, 3\], expected \[16, 8, 3, 3\]"):
        load_prior("sd3")
    with pytest.raises(WeightsError, match=r"vae: tensor"):
        read_vae(folder)
