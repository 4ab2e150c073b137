"""Captions by a tiny random BLIP with a tokenizer of its own, read from a folder of the published form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from kintsugi.core.errors import WeightsError
from kintsugi.core.runtime import LocalHost, using_host
from kintsugi.core.weights.captioners import captioner_choices
from kintsugi.nodes.caption import KintsugiCaption, KintsugiLoadCaptioner
from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessorPil

WORDS = ["a", "picture", "of", "cat", "dog", "red", "blue", "house", "on", "the", "hill", "sea"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]


@pytest.fixture
def folder(host: LocalHost) -> Path:
    return write_blip(host.folders.models / "kintsugi" / "captioner" / "blip-tiny")


def write_blip(folder: Path) -> Path:
    folder.mkdir(parents=True)
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *WORDS])}
    BertTokenizer(vocab=vocabulary, extra_special_tokens=SPECIAL[-1:]).save_pretrained(folder)
    BlipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 2.0}
    text = {
        **sizes, "vocab_size": len(SPECIAL) + len(WORDS), "encoder_hidden_size": 16, "max_position_embeddings": 64, "bos_token_id": 5,
        "pad_token_id": 0, "eos_token_id": 3, "sep_token_id": 3, "is_decoder": True,
    }  # fmt: skip
    config = BlipConfig(text_config=text, vision_config={**sizes, "image_size": 32, "patch_size": 8}, projection_dim=8)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    return folder


def pictures() -> torch.Tensor:
    return torch.rand(3, 40, 24, 3, generator=torch.Generator().manual_seed(0))


def test_every_picture_of_a_batch_has_a_line_of_known_words_and_always_the_same(folder: Path) -> None:
    (name,) = captioner_choices()
    assert name == "captioner/blip-tiny"
    (captioner,) = KintsugiLoadCaptioner().load(name)
    (captions,) = KintsugiCaption().describe(captioner, pictures())
    lines = captions.split("\n")
    assert len(lines) == 3 and len(set(lines)) > 1
    assert all(set(line.split()) <= set(WORDS) for line in lines) and any(lines)
    assert KintsugiCaption().describe(captioner, pictures()) == (captions,)
    assert [KintsugiCaption().describe(captioner, picture[None])[0] for picture in pictures()] == lines


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (3, 200), (70, 2)])
def test_pictures_of_any_size_are_described(folder: Path, size: tuple[int, int]) -> None:
    (captioner,) = KintsugiLoadCaptioner().load("captioner/blip-tiny")
    assert len(captioner.describe(torch.rand(2, *size, 3))) == 2


def test_another_micro_batch_says_the_same(folder: Path) -> None:
    (captioner,) = KintsugiLoadCaptioner().load("captioner/blip-tiny")
    alone = captioner.describe(pictures())
    with using_host(LocalHost(device=torch.device("cpu"), micro_batch=2)):
        assert captioner.describe(pictures()) == alone


def test_what_the_network_sees_is_what_its_own_processor_makes(folder: Path) -> None:
    (captioner,) = KintsugiLoadCaptioner().load("captioner/blip-tiny")
    seen: list[torch.Tensor] = []
    hook = captioner.network.vision_model.register_forward_pre_hook(
        lambda _, __, named: seen.append(named["pixel_values"]), with_kwargs=True
    )
    captioner.describe(pictures()[:1])
    hook.remove()
    levels = (pictures()[0] * 255).round().byte().numpy()
    expected = BlipImageProcessorPil.from_pretrained(folder)(levels, return_tensors="pt").pixel_values
    assert torch.equal(seen[0], expected) and expected.shape == (1, 3, 32, 32)


def test_without_a_captioner_the_list_says_so_and_running_tells_where_to_put_one(host: LocalHost) -> None:
    assert KintsugiLoadCaptioner.INPUT_TYPES()["required"]["weights"][0] == ["none found"]
    with pytest.raises(WeightsError, match=r"there is no captioner 'none found', searched .*kintsugi/captioner\. Put a BLIP folder there"):
        KintsugiLoadCaptioner().load("none found")


def test_half_a_folder_and_another_network_are_refused_by_name(folder: Path) -> None:
    def fault() -> str:
        with pytest.raises(WeightsError) as refused:
            KintsugiLoadCaptioner().load("captioner/blip-tiny")
        assert str(folder) in str(refused.value)
        return str(refused.value)

    settings = folder / "preprocessor_config.json"
    content = settings.read_bytes()
    settings.unlink()
    assert "Copy preprocessor_config.json" in fault()
    settings.write_bytes(content)
    weights = folder / "model.safetensors"
    weights.rename(folder / "pytorch_model.bin")
    assert "has a pickle (pytorch_model.bin)" in fault()
    (folder / "pytorch_model.bin").rename(weights)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "vit"}))
    assert "holds a vit, expected blip" in fault()
