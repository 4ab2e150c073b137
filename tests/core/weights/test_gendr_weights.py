"""GenDR at its full size: the layout that the manifest proposes, and files of that layout at tiny widths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_files import GOLDEN
from kintsugi.core.errors import BadValueError, WeightsError
from kintsugi.core.methods.one_step import Tiling, restore
from kintsugi.core.models.mini import build_unet, build_vae
from kintsugi.core.runtime import LocalHost
from kintsugi.core.weights.configs import shipped_config
from kintsugi.core.weights.files import read_weights, write_weights
from kintsugi.core.weights.gendr import empty_method, read_generator
from kintsugi.core.weights.generators import load_generator, weights_choices
from kintsugi.core.weights.lora import adapter_shapes
from kintsugi.core.weights.options import LoadOptions
from published_layouts import UNET_CONFIG, random_network, vae_config
from tiny_text_encoders import write_sd21_encoder
from torch import Tensor, nn

# What the score networks' adapters change: all of attention and feed-forward, the residual convolutions, the first and the last.
SCORE_TARGETS = (
    "to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2", "proj_in", "proj_out", "conv1", "conv2", "conv_shortcut", "conv_in",
    "conv_out",
)  # fmt: skip
CONFIG = {"kind": "gendr", "unet": UNET_CONFIG, "vae": "vae-kl-f8-d16"}


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    """What the manifest says of each file."""
    files: dict[str, Any] = json.loads((GOLDEN / "gendr" / "manifest.json").read_text())["files"]
    return files


def shapes(network: nn.Module) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in network.state_dict().items()}


def test_the_full_size_unet_has_the_manifests_names_shapes_and_count(manifest: dict[str, Any]) -> None:
    unet, expected = empty_method({}, {}).method.unet, manifest["generator.safetensors"]
    assert shipped_config("gendr-unet") == expected["unet_config"]
    assert shapes(unet) == expected["tensors"]
    assert sum(parameter.numel() for parameter in unet.parameters()) == expected["parameters"]


def test_the_vae_has_the_manifests_names_shapes_and_count(manifest: dict[str, Any]) -> None:
    expected = manifest["vae (external, as published)"]
    assert shipped_config("vae-kl-f8-d16") == expected["vae_config_inferred"]
    with torch.device("meta"):
        vae = build_vae(expected["vae_config_inferred"])
    assert shapes(vae) == expected["tensors"]
    assert sum(parameter.numel() for parameter in vae.parameters()) == expected["parameters"]


def test_the_full_size_prompt_has_the_manifests_shape(manifest: dict[str, Any]) -> None:
    assert list(empty_method({}, {}).method.prompt.shape) == manifest["prompts.safetensors"]["tensors"]["positive"]


def test_adapters_for_training_have_the_manifests_names_and_shapes(manifest: dict[str, Any]) -> None:
    expected = manifest["score_real_lora.safetensors"]
    base = empty_method({}, {}).method.unet.state_dict()
    found = adapter_shapes(base, SCORE_TARGETS, expected["rank"], prefix="")
    assert {name: list(shape) for name, shape in found.items()} == expected["tensors"]


def network() -> Any:
    torch.manual_seed(0)
    return build_unet(UNET_CONFIG)


def write_release(folder: Path, config: dict[str, Any] | None = None, prompt: Tensor | None = None, scaling: float | None = 0.5) -> Path:
    """A student in the published layout: manifest names, prompts beside it and the VAE in its folder."""
    student = folder / "generator.safetensors"
    write_weights(student, network().state_dict(), CONFIG if config is None else config, torch.float32)
    drawn = {name: torch.randn(1, 7, 12) for name in ("positive", "negative", "null")}
    write_weights(folder / "prompts.safetensors", drawn if prompt is None else {**drawn, "positive": prompt}, {}, torch.float32)
    random_network("AutoencoderKL", vae_config(16, scaling_factor=scaling or 1.0)).save_pretrained(folder / "vae-kl-f8-d16")
    if scaling is None:
        path = folder / "vae-kl-f8-d16" / "config.json"
        path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != "scaling_factor"}))
    return student


@pytest.fixture
def release(host: LocalHost) -> Path:
    return write_release(host.folders.models / "kintsugi" / "gendr")


def test_a_release_is_found_restores_and_gives_its_tensors_back_to_the_bit(release: Path, tmp_path: Path) -> None:
    assert weights_choices() == ["auto", "embedded", "gendr/generator.safetensors"]
    generator = load_generator("gendr", "auto", "fp32", LoadOptions(fold_constants=False))
    assert generator.name == "gendr (generator)" and generator.prior.family == "sd21-vae16"
    unet: nn.Module = generator.method.unet  # type: ignore[attr-defined]
    again = tmp_path / "again.safetensors"
    write_weights(again, unet.state_dict(), CONFIG, torch.float32)
    (first, config), (second, _) = read_weights(release), read_weights(again)
    assert config == CONFIG and list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert restore(generator, torch.rand(1, 20, 24, 3), 1.0, 0, Tiling()).isfinite().all()


def test_folded_says_what_unfolded_says(release: Path) -> None:
    latent = torch.randn(2, 16, 8, 8)
    plain, folded = (
        read_generator(release, LoadOptions(fold_constants=fold)).method.restore_latent(latent, None) for fold in (False, True)
    )
    assert (folded - plain).abs().max() <= 1e-5 * plain.abs().max()


def test_a_prompt_of_its_own_needs_the_text_encoder_of_its_base(release: Path, host: LocalHost) -> None:
    with pytest.raises(BadValueError, match="has no text encoders"):
        read_generator(release, LoadOptions(fold_constants=False)).with_prompt("a photo")
    write_sd21_encoder(host.folders.models / "diffusers" / "stable-diffusion-2-1-base")
    told = read_generator(release, LoadOptions(fold_constants=False)).with_prompt("a photo")
    assert told.method.prompt.shape == (1, 77, 12)  # type: ignore[attr-defined]
    with pytest.raises(BadValueError, match="Turn fold_constants off"):
        read_generator(release, LoadOptions()).with_prompt("a photo")


def test_a_prompt_encoder_of_another_width_is_refused(release: Path, host: LocalHost) -> None:
    write_sd21_encoder(host.folders.models / "diffusers" / "stable-diffusion-2-1-base", width=16)
    with pytest.raises(BadValueError, match=r"the prompt embedding is \[1, 77, 16\], expected \[1, tokens, 12\]"):
        read_generator(release, LoadOptions(fold_constants=False)).with_prompt("a photo")


@pytest.mark.parametrize("shape", [(1, 7, 16), (7, 12), (2, 7, 12)])
def test_a_stored_prompt_of_another_shape_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    student = write_release(tmp_path, prompt=torch.randn(shape))
    with pytest.raises(WeightsError, match=r"prompts\.safetensors: the prompt embedding is \[.*\], expected \[1, tokens, 12\]"):
        read_generator(student, LoadOptions())


def test_half_a_checkpoint_is_refused(release: Path) -> None:
    tensors, config = read_weights(release)
    write_weights(release, dict(list(tensors.items())[: len(tensors) // 2]), config, torch.float32)
    with pytest.raises(WeightsError, match=r"generator\.safetensors: tensor .* is missing; .* more faults"):
        read_generator(release, LoadOptions())
    release.write_bytes(release.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="if it was cut off, copy it again"):
        read_generator(release, LoadOptions())


def test_weights_of_another_method_are_refused(release: Path) -> None:
    write_weights(release, {"transformer.proj_out.lora_A.weight": torch.zeros(64, 16)}, {}, torch.float32)
    with pytest.raises(WeightsError, match=r"generator\.safetensors: tensor conv_in\.weight is missing; .* more faults"):
        read_generator(release, LoadOptions())
    write_weights(release, {"transformer.x": torch.zeros(1)}, {"kind": "tsd-sr"}, torch.float32)
    with pytest.raises(WeightsError, match="holds tsd-sr, not gendr"):
        read_generator(release, LoadOptions())


def test_tiny_widths_without_a_configuration_are_taken_for_the_full_size(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"generator\.safetensors: tensor .* is missing; .* more faults"):
        read_generator(write_release(tmp_path, config={}), LoadOptions())


def test_latents_of_an_unknown_scaling_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"vae-kl-f8-d16: its configuration has no scaling_factor"):
        read_generator(write_release(tmp_path, scaling=None), LoadOptions())
