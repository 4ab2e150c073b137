"""FLUX.1 in 4 bits by bitsandbytes, which is no dependency: where it is missing it is asked for, and the rest holds."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from flux_releases import FLUX_CONFIG, flux, original_flux_names, write_flux_files, write_flux_folder, write_flux_vae
from kintsugi.core.errors import BadValueError, MissingPackageError, WeightsError
from kintsugi.core.models.offload import OFFLOADS, Offload
from kintsugi.core.runtime import LocalHost
from kintsugi.core.weights.nf4 import QUANTIZATIONS
from kintsugi.core.weights.priors import load_prior
from published_layouts import write_single_file
from torch import Tensor

INSTALLED = find_spec("bitsandbytes") is not None
SAVED = {
    "quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": "bfloat16", "bnb_4bit_quant_storage": "uint8",
}  # fmt: skip
CODES = torch.tensor([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
])  # fmt: skip
BLOCK = 64
# bitsandbytes packs weights for a CPU in rows of 64 and more.
WIDTH = {"attention_head_dim": 32, "axes_dims_rope": [8, 8, 16]}


def rounded(weight: Tensor) -> Tensor:
    """nf4 by its definition (QLoRA, section 3): of every 64 numbers the largest is 1, the others the nearest of 16 codes."""
    blocks = weight.flatten().reshape(-1, BLOCK)
    largest = blocks.abs().amax(dim=1, keepdim=True)
    nearest = ((blocks / largest)[..., None] - CODES).abs().argmin(dim=-1)
    return (CODES[nearest] * largest).reshape(weight.shape)


def rounded_flux() -> Any:
    network = flux(**WIDTH)
    for name, layer in network.named_modules():
        if isinstance(layer, torch.nn.Linear) and "transformer_blocks" in name:
            layer.weight.data = rounded(layer.weight.data)
    return network


def velocity(network: Any) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        result: Tensor = network(
            hidden_states=torch.randn(1, 6, 64, generator=generator) / 8,
            encoder_hidden_states=torch.randn(1, 4, 40, generator=generator) / 8,
            pooled_projections=torch.randn(1, 8, generator=generator),
            timestep=torch.tensor([0.5]),
            guidance=torch.tensor([4.0]),
            img_ids=torch.cartesian_prod(torch.zeros(1), torch.arange(2.0), torch.arange(3.0)),
            txt_ids=torch.zeros(4, 3),
        ).sample
    return result


def similarity(found: Tensor, expected: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), dim=0))


def asked_for(call: Any) -> None:
    with pytest.raises(MissingPackageError, match=r"4-bit weights \(nf4\) need the package bitsandbytes\. pip install bitsandbytes"):
        call()


def quantised(host: LocalHost) -> Any:
    write_flux_files(host.folders.models, **WIDTH)
    prior = load_prior("flux", quantization="nf4")
    assert prior.denoiser is not None
    return prior.denoiser()


def test_layers_of_blocks_are_quantised_when_they_are_read_or_the_package_is_asked_for(host: LocalHost) -> None:
    if not INSTALLED:
        return asked_for(lambda: quantised(host))
    network = quantised(host)
    kinds = {name: type(layer).__name__ for name, layer in network.named_modules() if isinstance(layer, torch.nn.Linear)}
    assert all((kind == "Linear4bit") == ("transformer_blocks" in name) for name, kind in kinds.items())
    assert network.transformer_blocks[0].attn.to_q.weight.nbytes == 64 * 64 / 2
    assert similarity(velocity(network), velocity(rounded_flux())) > 0.99


def test_a_folder_saved_in_nf4_is_read_as_it_is_or_the_package_is_asked_for(host: LocalHost) -> None:
    folder = write_flux_folder(host.folders.models / "diffusers" / "FLUX.1-dev-nf4", **WIDTH)
    if not INSTALLED:
        config = json.loads((folder / "transformer" / "config.json").read_text())
        (folder / "transformer" / "config.json").write_text(json.dumps({**config, "quantization_config": SAVED}))
        return asked_for(lambda: load_prior("flux", "diffusers/FLUX.1-dev-nf4"))
    network = quantised(host)
    save_quantised(folder, {name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    prior = load_prior("flux", "diffusers/FLUX.1-dev-nf4")
    assert prior.denoiser is not None
    assert torch.allclose(velocity(prior.denoiser()), velocity(network), rtol=1e-3, atol=1e-2)


def save_quantised(folder: Path, tensors: dict[str, Tensor]) -> None:
    write_single_file(folder / "transformer" / "diffusion_pytorch_model.safetensors", tensors)
    config = json.loads((folder / "transformer" / "config.json").read_text())
    (folder / "transformer" / "config.json").write_text(json.dumps({**config, "quantization_config": SAVED}))


def test_a_quantised_text_encoder_asks_for_the_package(host: LocalHost, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_flux_folder(host.folders.models / "diffusers" / "FLUX.1-dev")
    config = json.loads((folder / "text_encoder_2" / "config.json").read_text())
    (folder / "text_encoder_2" / "config.json").write_text(json.dumps({**config, "quantization_config": SAVED}))
    monkeypatch.setattr("kintsugi.core.weights.nf4.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"text_encoder_2: 4-bit weights \(nf4\) need the package"):
        load_prior("flux").encode_prompt("a")


def test_without_the_package_it_is_asked_for_before_anything_is_read(host: LocalHost, monkeypatch: pytest.MonkeyPatch) -> None:
    write_flux_files(host.folders.models)
    monkeypatch.setattr("kintsugi.core.weights.nf4.find_spec", lambda name: None)
    asked_for(lambda: load_prior("flux", quantization="nf4"))


def test_the_embedded_prior_is_never_quantised(host: LocalHost) -> None:
    for name in QUANTIZATIONS:
        assert load_prior("flux", "embedded", quantization=name).codec.channels == 16


@pytest.mark.parametrize("offload", OFFLOADS)
def test_weights_in_4_bits_stay_on_their_device(host: LocalHost, offload: Offload) -> None:
    write_flux_files(host.folders.models)
    if offload == "none":
        return
    with pytest.raises(BadValueError, match=rf"weights in nf4 do not go with offload '{offload}'\. Choose offload none"):
        load_prior("flux", offload=offload, quantization="nf4")


@pytest.mark.parametrize("settings", [{"quant_method": "torchao"}, {**SAVED, "load_in_4bit": False, "load_in_8bit": True}])
def test_folders_quantised_otherwise_are_refused(host: LocalHost, settings: dict[str, Any]) -> None:
    folder = write_flux_folder(host.folders.models / "diffusers" / "FLUX.1-dev")
    config = json.loads((folder / "transformer" / "config.json").read_text())
    (folder / "transformer" / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))
    with pytest.raises(
        WeightsError, match=rf"transformer: was saved quantised as '{settings['quant_method']}', expected bitsandbytes in 4"
    ):
        load_prior("flux")


def test_a_file_of_the_release_in_nf4_is_refused_with_the_way_out(host: LocalHost) -> None:
    tensors = original_flux_names(flux().state_dict())
    mark = {"double_blocks.0.img_mlp.0.weight.quant_state.bitsandbytes__nf4": torch.zeros(8, dtype=torch.uint8)}
    write_single_file(host.folders.models / "checkpoints" / "nf4.safetensors", {**tensors, **mark}, {"transformer": FLUX_CONFIG})
    write_flux_vae(host.folders.models / "vae" / "ae.safetensors")
    with pytest.raises(WeightsError, match=r"nf4\.safetensors: was quantised by bitsandbytes in the names of the release.*GGUF"):
        load_prior("flux", "checkpoints/nf4.safetensors")


def test_other_families_are_not_quantised(host: LocalHost) -> None:
    folder = write_flux_folder(host.folders.models / "diffusers" / "mine")
    config = json.loads((folder / "transformer" / "config.json").read_text())
    (folder / "transformer" / "config.json").write_text(json.dumps({**config, "_class_name": "SD3Transformer2DModel"}))
    with pytest.raises(BadValueError, match=r"diffusers/mine: sd3 is not quantised\. Choose quantization none"):
        load_prior("sd3", "diffusers/mine", quantization="nf4")
