"""FLUX.1's prompts are those of diffusers' own pipeline, bit for bit, wherever the encoders lie."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline
from flux_releases import FLUX_VAE, flux, text_configs, text_tensors, write_flux_checkpoint, write_flux_files, write_flux_text
from kintsugi.core.errors import WeightsError
from kintsugi.core.runtime import LocalHost
from kintsugi.core.weights.flux_text import encode_flux_files
from kintsugi.core.weights.priors import load_prior
from kintsugi.core.weights.text_encoders import has_text_encoders, prompt_encoder
from published_layouts import write_single_file
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel

PROMPTS = ("a photo, clean", "", "word " * 300)
EIGHT = torch.float8_e4m3fn


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_flux_text(tmp_path / "base")
    return tmp_path / "base"


def pipeline(folder: Path) -> FluxPipeline:
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKL.from_config(FLUX_VAE),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder_2=T5EncoderModel.from_pretrained(folder / "text_encoder_2"),
        tokenizer_2=AutoTokenizer.from_pretrained(folder / "tokenizer_2"),
        transformer=flux(),
    )


def write_text_files(
    folder: Path, where: Path, t5: str = "t5xxl_fp16.safetensors", dtype: torch.dtype = torch.float32
) -> tuple[Path, Path]:
    """The encoders of the folder in ComfyUI's files."""
    configs = text_configs(folder)
    clip_l, second = text_tensors(folder)
    stored = {name: tensor.to(dtype) for name, tensor in second.items()}
    return write_single_file(where / "clip_l.safetensors", clip_l, configs), write_single_file(where / t5, stored, configs)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_tokens_and_pooled_are_those_of_diffusers_to_the_bit(folder: Path, prompt: str) -> None:
    found = prompt_encoder(folder, "flux")(prompt)
    with torch.inference_mode():
        tokens, pooled, _ = pipeline(folder).encode_prompt(prompt, max_sequence_length=512)
    assert found.tokens.shape == (1, 512, 40) and found.mask is None
    assert found.pooled is not None and found.pooled.shape == (1, 8)
    assert torch.equal(found.tokens, tokens) and torch.equal(found.pooled, pooled)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_files_and_checkpoints_say_what_the_folder_says(folder: Path, tmp_path: Path, prompt: str) -> None:
    expected = prompt_encoder(folder, "flux")(prompt)
    clip_l, t5 = write_text_files(folder, tmp_path / "text_encoders")
    whole = write_flux_checkpoint(tmp_path / "whole.safetensors", folder)
    assert has_text_encoders(whole, "flux") and not has_text_encoders(whole, "sdxl")
    for encoder in (prompt_encoder(clip_l, "flux", folder, t5), prompt_encoder(whole, "flux", folder)):
        found = encoder(prompt)
        assert found.pooled is not None and expected.pooled is not None
        assert torch.allclose(found.tokens, expected.tokens, rtol=0, atol=1e-6)
        assert torch.allclose(found.pooled, expected.pooled, rtol=0, atol=1e-6)


@pytest.mark.parametrize("t5", ["t5xxl_fp16.safetensors", "t5xxl_fp8_e4m3fn.safetensors"])
def test_a_prior_of_single_files_takes_comfyui_s_text_encoders(folder: Path, host: LocalHost, t5: str) -> None:
    write_flux_files(host.folders.models)
    assert load_prior("flux").prompt_encoder is None
    write_text_files(folder, host.folders.models / "text_encoders", t5, EIGHT if "fp8" in t5 else torch.float16)
    prior = load_prior("flux")
    with pytest.raises(WeightsError, match=r"clip_l\.safetensors: .*tokenizers were found nowhere.*diffusers/FLUX\.1-dev"):
        prior.encode_prompt("")
    (host.folders.models / "diffusers" / "FLUX.1-dev").mkdir(parents=True)
    for name in ("tokenizer", "tokenizer_2"):
        (folder / name).rename(host.folders.models / "diffusers" / "FLUX.1-dev" / name)
    found = load_prior("flux").encode_prompt("")
    assert found.tokens.shape == (1, 512, 40) and found.tokens.isfinite().all()


def test_t5_with_a_scale_for_every_layer_is_read(folder: Path, tmp_path: Path) -> None:
    clip_l, t5 = write_text_files(folder, tmp_path)
    expected = encode_flux_files(clip_l, "a", t5, folder).tokens
    second = text_tensors(folder)[1]
    tensors: dict[str, Tensor] = {"scaled_fp8": torch.zeros(0, dtype=EIGHT)}
    for name, tensor in second.items():
        scale = tensor.abs().max() / 448
        is_layer = ".SelfAttention." in name and "bias" not in name
        tensors |= {name: (tensor / scale).to(EIGHT), name.replace(".weight", ".scale_weight"): scale} if is_layer else {name: tensor}
    scaled = write_single_file(tmp_path / "t5xxl_fp8_e4m3fn_scaled.safetensors", tensors, text_configs(folder))
    assert torch.allclose(encode_flux_files(clip_l, "a", scaled, folder).tokens, expected, atol=0.2)


@pytest.mark.parametrize(
    ("name", "tensor", "fault"),
    [
        ("text_encoders.clip_l.transformer.text_model.final_layer_norm.bias", None, r"final_layer_norm\.bias is missing"),
        ("text_encoders.t5xxl.transformer.shared.weight", None, r"shared\.weight is missing"),
        ("text_encoders.t5xxl.transformer.encoder.final_layer_norm.weight", torch.zeros(3), r"is \[3\], expected \[40\]"),
        ("text_encoders.t5xxl.transformer.extra", torch.zeros(3), r"tensor extra is unknown"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused_by_name(
    folder: Path, tmp_path: Path, name: str, tensor: Tensor | None, fault: str
) -> None:
    whole = write_flux_checkpoint(tmp_path / "whole.safetensors", folder, **{name: tensor})
    with pytest.raises(WeightsError, match=rf"whole\.safetensors: .*{fault}"):
        prompt_encoder(whole, "flux", folder)("a")


def test_in_float16_files_keep_the_layers_in_float32_that_folders_do(folder: Path, tmp_path: Path, host: LocalHost) -> None:
    t5 = T5EncoderModel.from_pretrained(folder / "text_encoder_2")
    for name, parameter in t5.named_parameters():
        parameter.data *= 1e5 if name.endswith(".wo.weight") else 1
    t5.save_pretrained(folder / "text_encoder_2")
    clip_l, second = write_text_files(folder, tmp_path)
    host.dtype = torch.float16
    found, expected = encode_flux_files(clip_l, "a", second, folder).tokens, prompt_encoder(folder, "flux")("a").tokens
    assert found.isfinite().all() and torch.equal(found, expected)
