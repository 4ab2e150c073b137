"""Prompts become the embeddings each prior was trained with; networks are read when a prompt comes and kept no longer."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from kintsugi.core.errors import MissingPackageError, WeightsError
from kintsugi.core.models.prompt import PromptEmbedding
from kintsugi.core.runtime import LocalHost
from kintsugi.core.weights.bases import find_base
from kintsugi.core.weights.text_encoders import REMEMBERED, LazyPromptEncoder, encode_pixart, has_text_encoders, prompt_encoder
from kintsugi.core.weights.text_networks import encoders_kept
from published_layouts import SD3_CONFIG, random_network, vae_config, write_folder
from tiny_text_encoders import write_sd3_encoders, write_sd21_encoder, write_t5
from transformers import AutoTokenizer, CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel

TEXT = "a photo, clean"


def test_sd3_puts_two_clip_encoders_side_by_side_and_t5_behind_them(tmp_path: Path) -> None:
    write_sd3_encoders(tmp_path)
    found = prompt_encoder(tmp_path, "sd3")(TEXT)
    assert found.tokens.shape == (1, 77 + 256, 40) and found.pooled is not None and found.pooled.shape == (1, 20)
    assert found.mask is None
    states = []
    for part in ("", "_2"):
        ids = AutoTokenizer.from_pretrained(tmp_path / f"tokenizer{part}")(TEXT, padding="max_length", return_tensors="pt").input_ids
        output = CLIPTextModelWithProjection.from_pretrained(tmp_path / f"text_encoder{part}")(ids, output_hidden_states=True)
        states.append((output.hidden_states[-2], output.text_embeds))
    assert torch.equal(found.tokens[:, :77, :8], states[0][0])
    assert torch.equal(found.tokens[:, :77, 8:20], states[1][0])
    assert found.tokens[:, :77, 20:].abs().max() == 0
    assert torch.equal(found.pooled, torch.cat([states[0][1], states[1][1]], dim=1))
    ids = AutoTokenizer.from_pretrained(tmp_path / "tokenizer_3")(TEXT, padding="max_length", max_length=256, return_tensors="pt").input_ids
    assert torch.allclose(
        found.tokens[:, 77:], T5EncoderModel.from_pretrained(tmp_path / "text_encoder_3")(ids).last_hidden_state, atol=1e-5
    )


def test_sd21_takes_the_last_state_after_the_final_norm(tmp_path: Path) -> None:
    write_sd21_encoder(tmp_path)
    found = prompt_encoder(tmp_path, "sd21-vae16")(TEXT)
    ids = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")(TEXT, padding="max_length", return_tensors="pt").input_ids
    assert torch.equal(found.tokens, CLIPTextModel.from_pretrained(tmp_path / "text_encoder")(ids).last_hidden_state)
    assert found.tokens.shape == (1, 77, 12) and found.pooled is None and found.mask is None


@pytest.mark.parametrize("tokens", [120, 300])
def test_pixart_takes_small_letters_and_tells_padding_from_words(tmp_path: Path, tokens: int) -> None:
    write_t5(tmp_path)
    found = encode_pixart(tmp_path, TEXT, tokens)
    assert found.tokens.shape == (1, tokens, 40) and found.mask is not None and found.mask.dtype == torch.float32
    words = int(found.mask.sum())
    assert found.mask[0, :words].eq(1).all() and 2 < words < 30
    shouted = encode_pixart(tmp_path, f"  {TEXT.upper()} ", tokens)
    assert torch.equal(shouted.tokens, found.tokens)
    other = encode_pixart(tmp_path, TEXT, tokens + 20)
    assert torch.allclose(other.tokens[:, :words], found.tokens[:, :words], atol=1e-6)


def test_a_long_prompt_is_cut_to_what_the_encoder_takes(tmp_path: Path) -> None:
    write_sd3_encoders(tmp_path)
    assert prompt_encoder(tmp_path, "sd3")("word " * 400).tokens.shape == (1, 333, 40)


def test_networks_are_read_for_a_new_prompt_alone_and_kept_no_longer(tmp_path: Path) -> None:
    write_sd21_encoder(tmp_path)
    encoder = prompt_encoder(tmp_path, "sd21-vae16")
    first = encoder(TEXT)
    gc.collect()
    assert [found for found in gc.get_objects() if type(found) is CLIPTextModel] == []
    (tmp_path / "text_encoder" / "model.safetensors").unlink()
    assert encoder(TEXT) is first
    with pytest.raises(WeightsError, match=r"text_encoder: has no weights"):
        encoder("another prompt")


def test_networks_are_read_once_for_many_prompts_where_they_are_kept(tmp_path: Path) -> None:
    write_sd21_encoder(tmp_path)
    encoder = prompt_encoder(tmp_path, "sd21-vae16")
    with encoders_kept():
        encoder(TEXT)
        (tmp_path / "text_encoder" / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
        found = encoder("another prompt")
    with pytest.raises(WeightsError, match=r"text_encoder: has no weights"):
        encoder("a third prompt")
    (tmp_path / "elsewhere.safetensors").rename(tmp_path / "text_encoder" / "model.safetensors")
    assert torch.equal(prompt_encoder(tmp_path, "sd21-vae16")("another prompt").tokens, found.tokens)


def test_the_last_prompts_are_remembered_and_no_more() -> None:
    asked: list[str] = []

    def encode(_: Path, text: str) -> PromptEmbedding:
        asked.append(text)
        return PromptEmbedding(torch.zeros(1, 1, 1))

    encoder = LazyPromptEncoder(Path(), encode)
    for number in (*range(REMEMBERED + 1), 1, 0):
        encoder(str(number))
    assert asked == [*map(str, range(REMEMBERED + 1)), "0"]
    assert len(encoder.known) == REMEMBERED


def test_sd3_without_t5_says_so(tmp_path: Path) -> None:
    write_sd3_encoders(tmp_path, t5=False)
    assert has_text_encoders(tmp_path, "sd3")
    with pytest.raises(WeightsError, match=r"has no T5 text encoder \(text_encoder_3\).*keep the stored prompt"):
        prompt_encoder(tmp_path, "sd3")(TEXT)


def test_pickled_half_and_unreadable_encoders_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    write_sd21_encoder(tmp_path)
    weights = tmp_path / "text_encoder" / "model.safetensors"
    whole = load_file(weights)
    name = next(name for name in whole if name.endswith("final_layer_norm.weight"))
    save_file({key: tensor for key, tensor in whole.items() if key != name}, weights, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"final_layer_norm\.weight is missing"):
        prompt_encoder(tmp_path, "sd21-vae16")(TEXT)
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(WeightsError, match=r"has a pickle \(pytorch_model\.bin\)"):
        prompt_encoder(tmp_path, "sd21-vae16")(TEXT)
    (tmp_path / "tokenizer" / "tokenizer_config.json").unlink()
    with pytest.raises(WeightsError, match=r"tokenizer: cannot be read as a tokenizer"):
        prompt_encoder(tmp_path, "sd21-vae16")(TEXT)


def test_a_sentencepiece_tokenizer_names_the_package_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_t5(tmp_path)
    monkeypatch.setattr("kintsugi.core.weights.text_networks.find_spec", lambda name: None)
    (tmp_path / "tokenizer" / "spiece.model").touch()
    assert encode_pixart(tmp_path, TEXT).tokens.shape == (1, 300, 40)
    (tmp_path / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(MissingPackageError, match=r"Install sentencepiece and protobuf"):
        encode_pixart(tmp_path, TEXT)


def test_a_folder_with_encoders_gives_its_base_a_prompt_encoder(host: LocalHost) -> None:
    folder = host.folders.models / "diffusers" / "stable-diffusion-3-medium"
    parts = {"transformer": random_network("SD3Transformer2DModel", SD3_CONFIG), "vae": random_network("AutoencoderKL", vae_config(16))}
    write_folder(folder, parts)
    assert find_base("sd3").prompt_encoder() is None
    write_sd3_encoders(folder)
    encoder = find_base("sd3").prompt_encoder()
    assert encoder is not None and encoder(TEXT).tokens.shape == (1, 333, 40)
