"""InstaRevive's files: the published names, whole files of ours, prompts from either place, and what is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_files import GOLDEN
from kintsugi.core.errors import WeightsError
from kintsugi.core.methods.instarevive import FACE, InstaRevive, OneStepConstants, latent_passing_conv
from kintsugi.core.methods.one_step import Generator, Tiling, restore
from kintsugi.core.models.mini import build_pixart
from kintsugi.core.models.prompt import PromptEmbedding
from kintsugi.core.runtime import LocalHost
from kintsugi.core.weights.configs import shipped_config
from kintsugi.core.weights.files import read_weights, write_weights
from kintsugi.core.weights.generators import load_generator
from kintsugi.core.weights.instarevive import PUBLISHED, read_generator
from kintsugi.core.weights.options import LoadOptions
from published_layouts import random_network, vae_config
from safetensors.torch import save_file
from tiny_text_encoders import write_t5
from torch import Tensor

MANIFEST = json.loads((GOLDEN / "instarevive" / "manifest.json").read_text())["files"]["InstaRevive_v1.ckpt"]
CAPTIONS = 40
# The published transformer at tiny widths: all its layers, so all its names.
NARROW: dict[str, Any] = {
    **MANIFEST["transformer_config"], "num_attention_heads": 2, "attention_head_dim": 4, "cross_attention_dim": 8,
    "caption_channels": CAPTIONS, "norm_num_groups": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def narrow() -> dict[str, Tensor]:
    """Every published tensor with random values at tiny widths."""
    return dict(random_network("PixArtTransformer2DModel", NARROW).state_dict())


@pytest.fixture
def student(host: LocalHost, narrow: dict[str, Tensor]) -> Path:
    """The bare file where the published one lies, beside a VAE and prompts for two of the presets."""
    write_vae(host, 4)
    path = host.folders.models / "kintsugi" / PUBLISHED
    write_weights(path, narrow, {"transformer": NARROW}, torch.float32)
    save_file(
        {f"{name}{kind}": tensor for name in ("photo", "low_light") for kind, tensor in prompt_of(name).items()},
        path.with_name("prompts.safetensors"),
    )
    return path


def write_vae(host: LocalHost, channels: int) -> None:
    random_network("AutoencoderKL", vae_config(channels)).save_pretrained(host.folders.models / "vae" / "sd-vae-ft-ema")


def prompt_of(name: str) -> dict[str, Tensor]:
    tokens = torch.randn(1, 6, CAPTIONS, generator=torch.Generator().manual_seed(len(name)))
    return {"": tokens, ".mask": torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0, 0.0]])}


def method_of(generator: Generator) -> InstaRevive:
    assert isinstance(generator.method, InstaRevive)
    return generator.method


def test_the_full_size_has_exactly_the_tensors_of_the_published_file() -> None:
    assert shipped_config("pixart-transformer") == MANIFEST["transformer_config"]
    with torch.device("meta"):
        transformer = build_pixart(shipped_config("pixart-transformer"))
    assert {name: list(tensor.shape) for name, tensor in transformer.state_dict().items()} == MANIFEST["tensors"]
    assert sum(parameter.numel() for parameter in transformer.parameters()) == MANIFEST["parameters"]


def test_published_names_are_read_saved_and_read_again_to_the_bit(student: Path, narrow: dict[str, Tensor], tmp_path: Path) -> None:
    assert set(narrow) == set(MANIFEST["tensors"])
    first = method_of(read_generator(student, LoadOptions(fold_constants=False)))
    again = student.with_name("again.safetensors")
    write_weights(again, dict(first.transformer.state_dict()), {"transformer": NARROW}, torch.float32)
    second = method_of(read_generator(again, LoadOptions(fold_constants=False)))
    for name, tensor in second.transformer.state_dict().items():
        assert torch.equal(tensor, narrow[name]), name
    assert torch.equal(second.prompt, first.prompt) and torch.equal(second.prompt_mask, first.prompt_mask)


def test_auto_takes_the_published_file_with_the_bases_vae_and_restores(student: Path) -> None:
    folded, whole = (load_generator("instarevive", "auto", "fp32", LoadOptions(fold_constants=fold)) for fold in (True, False))
    assert folded.name == "instarevive (InstaRevive_v1)" and folded.prior.family == "pixart-alpha"
    assert (folded.multiple, folded.prior.codec.channels, folded.border) == (4, 4, 0)
    assert method_of(folded).constants == OneStepConstants(400, "bias", noise_input=False)
    picture = torch.rand(1, 18, 22, 3)
    restored, expected = (restore(generator, picture, 1.0, 0, Tiling(64, 16)) for generator in (folded, whole))
    assert restored.shape == (1, 18, 22, 3) and (restored - expected).abs().max() < 1e-4


@pytest.mark.parametrize(("preset", "name"), [("photo", "photo"), ("low light", "low_light")])
def test_a_stored_prompt_is_taken_by_its_preset(student: Path, preset: str, name: str) -> None:
    method = method_of(read_generator(student, LoadOptions(preset=preset, fold_constants=False)))
    assert torch.equal(method.prompt, prompt_of(name)[""]) and torch.equal(method.prompt_mask, prompt_of(name)[".mask"])


def test_a_preset_that_is_not_stored_is_encoded_by_the_bases_text_encoder(student: Path, host: LocalHost) -> None:
    folder = host.folders.models / "diffusers" / "PixArt-XL-2-512x512"
    write_t5(folder, width=CAPTIONS)
    generator = read_generator(student, LoadOptions(preset="inpainting", fold_constants=False))
    expected = generator.prior.encode_prompt(FACE)
    assert expected.mask is not None and torch.equal(method_of(generator).prompt, expected.tokens)
    assert torch.equal(method_of(generator).prompt_mask, expected.mask) and expected.mask.shape == (1, 300)
    told = generator.with_prompt("a cat")
    assert not torch.equal(method_of(told).prompt, expected.tokens)


def test_a_prompt_from_neither_place_is_refused_with_both_ways_out(student: Path) -> None:
    with pytest.raises(WeightsError, match=r"prompts\.safetensors: has no embedding of the preset 'cartoon'") as refused:
        read_generator(student, LoadOptions(preset="cartoon"))
    assert "cartoon.mask [1, tokens]" in str(refused.value) and "text_encoder and tokenizer" in str(refused.value)


def test_without_the_bases_vae_it_is_told_where_to_put_it(student: Path, host: LocalHost) -> None:
    (host.folders.models / "vae").rename(host.folders.models / "elsewhere")
    with pytest.raises(WeightsError, match=r"found nothing of the prior pixart-alpha.*sd-vae-ft-ema"):
        read_generator(student, LoadOptions())


Change = Callable[[dict[str, Tensor], dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda tensors, _: tensors.pop("proj_out.bias"), r"tensor proj_out\.bias is missing"),
        (lambda tensors, _: tensors.update({"pos_embed.pos_embed": torch.zeros(1)}), r"tensor pos_embed\.pos_embed is unknown"),
        (lambda tensors, _: tensors.update({"proj_out.bias": torch.zeros(7)}), r"tensor proj_out\.bias is \[7\], expected \[32\]"),
        (lambda tensors, _: tensors.update({"concat_conv.bias": torch.zeros(4)}), r"tensor concat_conv\.bias is unknown"),
        (lambda _, config: config.update(kind="gendr"), "holds gendr, not instarevive"),
        (lambda _, config: config.update(one_step={"timestep": 1000}), "timestep is 1000, expected 0 to 999"),
        (lambda _, config: config.update(one_step={"mask_mode": "hide"}), "mask_mode is 'hide', expected one of bias, keep"),
        (lambda _, config: config.update(one_step={"beta": 1}), "its one_step numbers"),
        (lambda _, config: config.update(one_step={"noise_input": True}), r"concat_conv: tensor weight is missing"),
        (lambda _, config: config.clear(), r"is \[2, 8\], expected \[2, 1152\]"),
    ],
)
def test_a_student_that_does_not_fit_is_refused_by_name(student: Path, change: Change, fault: str) -> None:
    tensors, config = read_weights(student)
    change(tensors, config)
    write_weights(student, tensors, config, torch.float32)
    with pytest.raises(WeightsError, match=fault) as refused:
        read_generator(student, LoadOptions())
    assert str(student) in str(refused.value)


@pytest.mark.parametrize(
    ("stored", "fault"),
    [
        ({"photo": torch.zeros(1, 6, 12)}, r"the prompt embedding is \[1, 6, 12\], expected \[1, tokens, 40\]"),
        ({"photo": torch.zeros(6, 40)}, r"the prompt embedding is \[6, 40\]"),
        ({"photo": torch.zeros(1, 6, 40), "photo.mask": torch.ones(1, 5)}, r"the prompt's mask is \[1, 5\], expected \[1, 6\]"),
    ],
)
def test_a_stored_prompt_of_another_size_is_refused(student: Path, stored: dict[str, Tensor], fault: str) -> None:
    save_file(stored, student.with_name("prompts.safetensors"))
    with pytest.raises(WeightsError, match=fault):
        read_generator(student, LoadOptions())


def test_a_vae_of_other_channels_is_refused(student: Path, host: LocalHost) -> None:
    write_vae(host, 16)
    with pytest.raises(WeightsError, match="takes latents of 4 channels, and the VAE makes 16"):
        read_generator(student, LoadOptions())


def test_a_whole_file_brings_prompt_noise_convolution_and_constants(tmp_path: Path) -> None:
    config = {**NARROW, "num_layers": 2, "in_channels": 16, "out_channels": 32}
    torch.manual_seed(0)
    constants = OneStepConstants(timestep=250, mask_mode="keep", noise_input=True)
    prompt = PromptEmbedding(torch.randn(1, 6, CAPTIONS), mask=prompt_of("a")[".mask"])
    convolution = latent_passing_conv(16)
    torch.nn.init.normal_(convolution.weight)
    trained = InstaRevive(build_pixart(config), prompt, constants, convolution)
    content = {"kind": "instarevive", "transformer": config, "one_step": vars(constants), "border": 8, "vae": "embedded"}
    path = tmp_path / "mini.safetensors"
    write_weights(path, dict(trained.state_dict()), content, torch.float32)
    generator = read_generator(path, LoadOptions(fold_constants=False))
    read = method_of(generator)
    assert (read.constants, generator.border, read.noise_channels) == (constants, 8, 16)
    assert read.state_dict().keys() == trained.state_dict().keys()
    assert all(torch.equal(tensor, trained.state_dict()[name]) for name, tensor in read.state_dict().items())
    picture = torch.rand(1, 24, 16, 3)
    assert not torch.equal(*(restore(generator, picture, 1.0, seed, Tiling(64, 16)) for seed in (1, 2)))


@pytest.mark.parametrize("name", ["prompt", "prompt_mask", "transformer.proj_out.bias"])
def test_half_a_whole_file_is_refused(tmp_path: Path, name: str) -> None:
    method = InstaRevive(build_pixart(NARROW), PromptEmbedding(torch.randn(1, 6, CAPTIONS)), OneStepConstants())
    tensors = {key: tensor for key, tensor in method.state_dict().items() if key != name}
    write_weights(tmp_path / "half.safetensors", tensors, {"transformer": NARROW})
    with pytest.raises(WeightsError, match=f"tensor {name.removeprefix('transformer.')} is missing"):
        read_generator(tmp_path / "half.safetensors", LoadOptions())
