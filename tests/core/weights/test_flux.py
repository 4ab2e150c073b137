"""FLUX.1 is read from a diffusers folder and from single files, part by part and strictly, and nothing else is taken for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers as converted_by_diffusers
from flux_releases import (
    FLUX_CONFIG,
    FLUX_VAE,
    flux,
    original_flux_names,
    write_flux_checkpoint,
    write_flux_files,
    write_flux_folder,
    write_flux_text,
    write_flux_vae,
)
from kintsugi.core.errors import WeightsError
from kintsugi.core.methods.coding import decode_latent, encode_picture
from kintsugi.core.models.mini import build_vae
from kintsugi.core.models.offload import OFFLOADS, Offload
from kintsugi.core.models.prior import Prior
from kintsugi.core.runtime import LocalHost
from kintsugi.core.weights.bases import find_base
from kintsugi.core.weights.configs import shipped_config
from kintsugi.core.weights.families import FAMILIES
from kintsugi.core.weights.files import require_exact
from kintsugi.core.weights.flux_names import flux_names
from kintsugi.core.weights.priors import load_prior
from published_layouts import random_network, write_folder, write_single_file
from torch import Tensor

TEXT = "a photo, clean"
LAYOUTS = ("folder", "files", "checkpoint")


def in_layout(layout: str, models: Path) -> None:
    texts = models / "diffusers" / "FLUX.1-dev"
    if layout == "folder":
        write_flux_folder(texts)
        return
    write_flux_text(texts)
    if layout == "files":
        write_flux_files(models)
    else:
        write_flux_checkpoint(models / "checkpoints" / "flux1-dev-fp8.safetensors", texts)


def velocity(prior: Prior, dtype: torch.dtype = torch.float32) -> Tensor:
    """What the prior's transformer says of one drawn latent."""
    assert prior.denoiser is not None
    network: Any = prior.denoiser()
    prompt, generator = prior.encode_prompt(TEXT), torch.Generator().manual_seed(0)
    assert prompt.pooled is not None
    ids = torch.cartesian_prod(torch.zeros(1), torch.arange(2.0), torch.arange(3.0))
    with torch.inference_mode():
        result: Tensor = network(
            hidden_states=torch.randn(1, 6, 64, generator=generator).to(dtype),
            encoder_hidden_states=prompt.tokens.to(dtype),
            pooled_projections=prompt.pooled.to(dtype),
            timestep=torch.tensor([0.5]),
            guidance=torch.tensor([4.0]) if network.config.guidance_embeds else None,
            img_ids=ids,
            txt_ids=torch.zeros(512, 3),
        ).sample
    return result


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_part_is_read_to_the_bit(host: LocalHost, layout: str) -> None:
    in_layout(layout, host.folders.models)
    prior, expected = load_prior("flux"), {"denoiser": flux(), "vae": random_network("AutoencoderKL", FLUX_VAE)}
    assert (prior.family, prior.dtype, prior.offload) == ("flux", torch.float32, "none")
    assert prior.denoiser is not None and prior.schedule is not None
    for network, name in ((prior.denoiser(), "denoiser"), (prior.codec.vae, "vae")):
        tensors = expected[name].state_dict()
        assert network.state_dict().keys() == tensors.keys()
        assert all(torch.equal(tensor, tensors[key]) for key, tensor in network.state_dict().items())
    picture = torch.rand(1, 16, 16, 3, generator=torch.Generator().manual_seed(1))
    latent = encode_picture(prior, picture, 512)
    assert latent.shape == (1, 16, 8, 8) and decode_latent(prior, latent, 512).shape == picture.shape
    assert velocity(prior).isfinite().all()


def test_its_schedule_is_the_flow(host: LocalHost) -> None:
    in_layout("files", host.folders.models)
    schedule, t = load_prior("flux").schedule, torch.tensor([0.0, 250.0, 1000.0])
    assert schedule is not None
    assert schedule.signal(t).tolist() == [1, 0.75, 0] and schedule.noise(t).tolist() == [0, 0.25, 1]


def test_latents_are_scaled_as_the_release_says(host: LocalHost) -> None:
    in_layout("files", host.folders.models)
    prior, picture = load_prior("flux"), torch.rand(1, 16, 16, 3)
    plain = prior.codec.vae.encode(2 * picture.movedim(-1, 1) - 1).latent_dist.mode()
    assert torch.allclose(encode_picture(prior, picture, 512), 0.3611 * (plain - 0.1159), rtol=1e-4)
    shipped = shipped_config("flux-vae")
    assert (shipped["latent_channels"], shipped["scaling_factor"], shipped["shift_factor"]) == (16, 0.3611, 0.1159)


def test_names_of_the_release_are_converted_as_diffusers_does() -> None:
    """Its converter knows the full width alone, and looks at rows alone: one column is enough."""
    config = {**FLUX_CONFIG, "attention_head_dim": 128, "num_attention_heads": 24, "axes_dims_rope": [16, 56, 56]}
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in flux_on_meta(config).items()}
    columns = {name: torch.randn(shape[0], *shape[2:], 1) if len(shape) > 1 else torch.randn(shape) for name, shape in shapes.items()}
    original = original_flux_names(columns)
    found, expected = flux_names(original), converted_by_diffusers(dict(original))
    assert found.keys() == expected.keys() == shapes.keys()
    assert all(torch.equal(tensor, expected[name]) and torch.equal(tensor, columns[name]) for name, tensor in found.items())


def flux_on_meta(config: dict[str, Any]) -> dict[str, Tensor]:
    from diffusers import FluxTransformer2DModel

    with torch.device("meta"):
        tensors: dict[str, Tensor] = FluxTransformer2DModel.from_config(config).state_dict()
    return tensors


def test_full_size_names_and_shapes_are_those_of_the_release() -> None:
    family = FAMILIES["flux"]
    transformer = flux_on_meta(shipped_config(family.config))
    assert sum(tensor.numel() for tensor in transformer.values()) == 11_901_408_320
    original = original_flux_names(transformer)
    assert len(original) == 780 and original["double_blocks.18.img_attn.qkv.weight"].shape == (9216, 3072)
    assert family.has_tensors({name: tensor.shape for name, tensor in original.items()})
    require_exact({name: tensor.shape for name, tensor in transformer.items()}, flux_names(original), "release")
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in build_vae(shipped_config(family.vae_config)).parameters()) == 83_819_683


def test_tensors_stored_as_one_are_split_without_a_copy() -> None:
    original = original_flux_names(flux().state_dict())
    found = flux_names(original)
    whole = original["single_blocks.0.linear1.weight"]
    parts = [found[f"single_transformer_blocks.0.{name}.weight"] for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
    assert all(part.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr() for part in parts)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_transformer_alone_takes_its_vae_from_comfyui_s_place(host: LocalHost, prefix: str) -> None:
    models = host.folders.models
    tensors = {f"{prefix}{name}": tensor for name, tensor in original_flux_names(flux().state_dict()).items()}
    write_single_file(models / "diffusion_models" / "tuned.safetensors", tensors, {"transformer": FLUX_CONFIG})
    with pytest.raises(WeightsError, match=r"tuned\.safetensors: has no VAE of the prior flux\..*ae\.safetensors into vae"):
        load_prior("flux")
    write_flux_vae(models / "vae" / "ae.safetensors")
    base = find_base("flux")
    assert base.name == "diffusion_models/tuned.safetensors" and base.prompt_encoder() is None
    assert base.vae().config["scaling_factor"] == 0.3611


@pytest.mark.parametrize("scale_name", ["scale_weight", "weight_scale"])
def test_8_bit_files_are_read_and_computed_with_in_the_chosen_dtype(host: LocalHost, scale_name: str) -> None:
    models, eight = host.folders.models, torch.float8_e4m3fn
    write_flux_vae(models / "vae" / "ae.safetensors")
    plain = original_flux_names(flux().state_dict())
    stored = {name: tensor.to(eight) if tensor.ndim > 1 else tensor for name, tensor in plain.items()}
    write_single_file(models / "diffusion_models" / "plain.safetensors", stored, {"transformer": FLUX_CONFIG})
    scales = {name.replace(".weight", f".{scale_name}"): torch.tensor(2.0) for name, tensor in stored.items() if tensor.dtype == eight}
    halved = {name: (tensor.float() / 2).to(eight) if tensor.dtype == eight else tensor for name, tensor in stored.items()}
    marks = {"scaled_fp8": torch.zeros(2, dtype=eight), "double_blocks.0.img_mlp.0.scale_input": torch.tensor(1.0)}
    write_single_file(models / "diffusion_models" / "scaled.safetensors", {**halved, **scales, **marks}, {"transformer": FLUX_CONFIG})
    for name in ("plain", "scaled"):
        prior = load_prior("flux", f"diffusion_models/{name}.safetensors", "bf16")
        assert prior.denoiser is not None
        found = prior.denoiser().state_dict()
        assert all(tensor.dtype == torch.bfloat16 for tensor in found.values())
        for key, tensor in flux_names(stored).items():
            assert torch.allclose(found[key].float(), tensor.float(), rtol=2**-7, atol=0.01), key


@pytest.mark.parametrize("layout", ["folder", "files"])
def test_schnell_works_too_and_is_said(host: LocalHost, layout: str, caplog: pytest.LogCaptureFixture) -> None:
    models = host.folders.models
    write_flux_text(models / "diffusers" / "FLUX.1-dev")
    if layout == "folder":
        write_flux_folder(models / "diffusers" / "FLUX.1-schnell", guidance_embeds=False)
    else:
        tensors = original_flux_names(flux(guidance_embeds=False).state_dict())
        write_single_file(
            models / "diffusion_models" / "flux1-schnell.safetensors", tensors, {"transformer": {**FLUX_CONFIG, "guidance_embeds": False}}
        )
        write_flux_vae(models / "vae" / "ae.safetensors")
    with caplog.at_level("INFO", "kintsugi"):
        assert velocity(load_prior("flux")).isfinite().all()
    assert "a FLUX.1-schnell, which is told no guidance scale" in caplog.text


def test_whether_a_bare_file_of_the_release_has_guidance_is_told_by_its_tensors() -> None:
    from kintsugi.core.weights.single_files import shipped_denoiser_config

    for guidance in (True, False):
        original = original_flux_names(flux(guidance_embeds=guidance).state_dict())
        assert shipped_denoiser_config(FAMILIES["flux"], original)["guidance_embeds"] is guidance


OTHERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "fill": ("FluxTransformer2DModel", {"in_channels": 384, "out_channels": 64}, r"FLUX\.1 Fill \(384 input channels\)"),
    "depth": ("FluxTransformer2DModel", {"in_channels": 128, "out_channels": 64}, r"FLUX\.1 Canny or Depth \(128 input channels\)"),
    "flux 2": ("Flux2Transformer2DModel", {"in_channels": 128, "axes_dims_rope": [2, 2, 2, 2]}, r"FLUX\.2 \(128 input channels\)"),
    "chroma": ("ChromaTransformer2DModel", {"approximator_hidden_dim": 16, "approximator_layers": 1}, r"Chroma \(64 input channels\)"),
}


@pytest.mark.parametrize("layout", ["folder", "file"])
@pytest.mark.parametrize("other", OTHERS)
def test_other_models_of_that_name_are_refused_in_words(host: LocalHost, other: str, layout: str) -> None:
    class_name, changes, found = OTHERS[other]
    models = host.folders.models
    unknown = ("guidance_embeds", "pooled_projection_dim") if class_name != "FluxTransformer2DModel" else ()
    config = {name: value for name, value in {**FLUX_CONFIG, **changes}.items() if name not in unknown}
    network = random_network(class_name, config)
    if layout == "folder":
        write_folder(models / "diffusers" / "mine", {"transformer": network})
    else:
        write_single_file(models / "diffusion_models" / "mine.safetensors", network.state_dict())
    write_flux_vae(models / "vae" / "ae.safetensors")
    name = "diffusers/mine" if layout == "folder" else "diffusion_models/mine.safetensors"
    with pytest.raises(
        WeightsError, match=rf"(?s)mine.*holds no FluxTransformer2DModel of flux: found {found}, expected FLUX\.1 \(64 input"
    ):
        load_prior("flux", name)
    assert load_prior("flux").codec.channels == 16


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("double_stream_modulation_img.lin.weight", r"FLUX\.2"),
        ("distilled_guidance_layer.in_proj.weight", "Chroma"),
    ],
)
def test_others_in_the_names_of_their_release_are_told_too(host: LocalHost, name: str, found: str) -> None:
    tensors = {**original_flux_names(flux().state_dict()), name: torch.zeros(2, 2)}
    write_single_file(host.folders.models / "diffusion_models" / "mine.safetensors", tensors)
    with pytest.raises(WeightsError, match=rf"found {found} \(64 input channels\), expected FLUX\.1"):
        find_base("flux", "diffusion_models/mine.safetensors").denoiser()


def test_a_controlnet_is_not_taken_for_the_transformer_it_copies(host: LocalHost) -> None:
    tensors = {name: tensor for name, tensor in flux().state_dict().items() if not name.startswith(("norm_out", "proj_out"))}
    write_single_file(host.folders.models / "diffusion_models" / "controlnet.safetensors", tensors)
    with pytest.raises(WeightsError, match=r"controlnet\.safetensors: holds no FluxTransformer2DModel of flux\."):
        find_base("flux", "diffusion_models/controlnet.safetensors").denoiser()


@pytest.mark.parametrize(
    ("name", "tensor", "fault"),
    [
        ("model.diffusion_model.double_blocks.1.extra.weight", torch.zeros(1), r"transformer_blocks\.1\.extra\.weight is unknown"),
        ("model.diffusion_model.extra", torch.zeros(1), r"tensor extra is unknown"),
        ("model.diffusion_model.txt_in.bias", None, r"context_embedder\.bias is missing"),
        ("model.diffusion_model.single_blocks.2.linear1.bias", None, r"single_transformer_blocks\.2\.attn\.to_q\.bias is missing"),
        ("model.diffusion_model.final_layer.linear.bias", torch.zeros(3), r"proj_out\.bias is \[3\], expected \[64\]"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(host: LocalHost, name: str, tensor: Tensor | None, fault: str) -> None:
    models = host.folders.models
    write_flux_text(models / "texts")
    write_flux_checkpoint(models / "checkpoints" / "mine.safetensors", models / "texts", **{name: tensor})
    prior = load_prior("flux", "checkpoints/mine.safetensors")
    assert prior.denoiser is not None
    with pytest.raises(WeightsError, match=fault):
        prior.denoiser()


@pytest.mark.parametrize("offload", OFFLOADS)
def test_every_offload_says_the_same(host: LocalHost, offload: Offload) -> None:
    in_layout("folder", host.folders.models)
    exact, found = velocity(load_prior("flux")), velocity(load_prior("flux", offload=offload))
    if offload == "layerwise fp8":
        assert not torch.equal(found, exact) and torch.nn.functional.cosine_similarity(found.flatten(), exact.flatten(), dim=0) > 0.9
    else:
        assert torch.equal(found, exact)
