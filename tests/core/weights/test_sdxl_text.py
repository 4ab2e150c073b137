"""SDXL's prompts are those of diffusers' own pipeline, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
from kintsugi.core.errors import WeightsError
from kintsugi.core.runtime import LocalHost
from kintsugi.core.weights.text_encoders import has_text_encoders, prompt_encoder
from kintsugi.core.weights.text_networks import token_ids
from sdxl_layouts import sdxl_parts, write_sdxl_checkpoint, write_sdxl_folder, write_sdxl_tokenizers
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

PROMPTS = ("a photo, clean!", "", "word " * 100)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_sdxl_folder(tmp_path / "base")


def encoders(folder: Path) -> tuple[Any, Any]:
    """Read from their files: the product of a matrix and a vector rounds otherwise where the matrix lies otherwise in memory."""
    first = CLIPTextModel.from_pretrained(folder / "text_encoder")
    return first, CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2")


def pipeline(folder: Path) -> StableDiffusionXLPipeline:
    parts = {**sdxl_parts(), **dict(zip(("text_encoder", "text_encoder_2"), encoders(folder), strict=True))}
    for name in ("tokenizer", "tokenizer_2"):
        parts[name] = CLIPTokenizer.from_pretrained(folder / name)
    return StableDiffusionXLPipeline(**parts, scheduler=EulerDiscreteScheduler(), add_watermarker=False)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_tokens_and_pooled_are_those_of_diffusers_to_the_bit(folder: Path, prompt: str) -> None:
    found = prompt_encoder(folder, "sdxl")(prompt)
    with torch.inference_mode():
        positive, negative, pooled, negative_pooled = pipeline(folder).encode_prompt(prompt, negative_prompt=prompt)
    assert found.tokens.shape == (1, 77, 8 + 12) and found.mask is None
    assert found.pooled is not None and found.pooled.shape == (1, 12)
    for tokens, vector in ((positive, pooled), (negative, negative_pooled)):
        assert torch.equal(found.tokens, tokens) and torch.equal(found.pooled, vector)


def test_tokens_are_states_before_the_last_layer_and_pooled_is_projected(folder: Path) -> None:
    found = prompt_encoder(folder, "sdxl")(PROMPTS[0])
    ids = [token_ids(folder / part, PROMPTS[0])[0] for part in ("tokenizer", "tokenizer_2")]
    outputs = [encoder(rows, output_hidden_states=True) for encoder, rows in zip(encoders(folder), ids, strict=True)]
    for output, tokens in zip(outputs, found.tokens.split([8, 12], dim=-1), strict=True):
        assert torch.equal(tokens, output.hidden_states[-2])
        assert not torch.equal(tokens, output.hidden_states[-1])
    assert found.pooled is not None and torch.equal(found.pooled, outputs[1].text_embeds)


def test_the_first_tokenizer_pads_with_its_end_and_the_second_with_an_exclamation_mark(folder: Path) -> None:
    first, second = (token_ids(folder / part, "ab")[0][0] for part in ("tokenizer", "tokenizer_2"))
    end = int(first.max())
    assert first[:2].equal(second[:2]) and first.shape == (77,)
    assert first[10:].eq(end).all() and second[10:].eq(0).all()


def test_encoders_of_a_checkpoint_say_what_those_of_a_folder_say(folder: Path, tmp_path: Path) -> None:
    file = write_sdxl_checkpoint(tmp_path / "file.safetensors")
    write_sdxl_tokenizers(tmp_path / "apart")
    assert has_text_encoders(file, "sdxl") and not has_text_encoders(file, "sd3")
    found, expected = prompt_encoder(file, "sdxl", tmp_path / "apart")(PROMPTS[0]), prompt_encoder(folder, "sdxl")(PROMPTS[0])
    assert torch.equal(found.tokens, expected.tokens)
    assert found.pooled is not None and expected.pooled is not None
    # Not to the bit: see encoders().
    assert torch.allclose(found.pooled, expected.pooled, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "tensor", "fault"),
    [
        ("conditioner.embedders.0.transformer.text_model.final_layer_norm.bias", None, r"final_layer_norm\.bias is missing"),
        ("conditioner.embedders.0.transformer.text_model.extra", torch.zeros(1), r"extra is unknown"),
        ("conditioner.embedders.1.model.transformer.resblocks.1.ln_1.bias", None, r"layers\.1\.layer_norm1\.bias is missing"),
        ("conditioner.embedders.1.model.extra", torch.zeros(1), r"tensor extra is unknown"),
        ("conditioner.embedders.1.model.text_projection", None, r"tensor text_projection is missing"),
        ("conditioner.embedders.1.model.ln_final.bias", torch.zeros(3), r"final_layer_norm\.bias is \[3\], expected \[12\]"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused_by_name(tmp_path: Path, name: str, tensor: torch.Tensor | None, fault: str) -> None:
    file = write_sdxl_checkpoint(tmp_path / "file.safetensors", **{name: tensor})
    write_sdxl_tokenizers(tmp_path / "apart")
    with pytest.raises(WeightsError, match=rf"file\.safetensors: .*{fault}"):
        prompt_encoder(file, "sdxl", tmp_path / "apart")("a")


def test_what_merged_checkpoints_hold_beside_their_encoders_is_passed_over(tmp_path: Path) -> None:
    extra = {"conditioner.embedders.0.transformer.text_projection.weight": torch.zeros(8, 8)}
    file = write_sdxl_checkpoint(tmp_path / "file.safetensors", **extra)
    write_sdxl_tokenizers(tmp_path / "apart")
    assert prompt_encoder(file, "sdxl", tmp_path / "apart")("a").tokens.shape == (1, 77, 20)


def test_a_prompt_is_encoded_in_the_hosts_precision_and_comes_back_in_float32(folder: Path, host: LocalHost) -> None:
    exact = prompt_encoder(folder, "sdxl")("a").tokens
    host.dtype = torch.bfloat16
    rounded = prompt_encoder(folder, "sdxl")("a").tokens
    assert rounded.dtype == torch.float32 and not torch.equal(exact, rounded)
    assert torch.allclose(exact, rounded, atol=0.5)
