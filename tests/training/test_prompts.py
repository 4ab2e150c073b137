"""The cache of prompt embeddings, with the small text encoder of the embedded priors."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch
from kintsugi.core.errors import KintsugiError
from kintsugi.core.models.byte_text import ByteTextEncoder
from kintsugi.core.models.prompt import PromptEmbedding
from kintsugi.training import prompts
from kintsugi.training.prompts import PromptCache


class CountingEncoder:
    """A ByteTextEncoder that counts what it is asked."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.encoder = ByteTextEncoder(tokens=4, width=6, pooled=5)
        self.asked: list[str] = []

    def __call__(self, text: str) -> PromptEmbedding:
        self.asked.append(text)
        return self.encoder.encode(text)


def unpadded(text: str) -> PromptEmbedding:
    return PromptEmbedding(torch.zeros(1, 1 + len(text), 2), mask=torch.ones(1, 1 + len(text)))


def fill_elsewhere(folder: Path) -> None:
    PromptCache(CountingEncoder(), "bytes", folder).fill(["a cat", "a dog"] * 4)


def test_a_batch_has_one_row_per_text_in_their_order() -> None:
    encoder = CountingEncoder()
    found = PromptCache(encoder, "bytes", None).batch(["a cat", "", "a cat"])
    assert found.tokens.shape == (3, 4, 6)
    assert found.mask is None
    assert not found.tokens.is_inference(), "a gradient could not pass a layer that takes them"
    for row, text in enumerate(["a cat", "", "a cat"]):
        alone = encoder.encoder.encode(text)
        assert torch.equal(found.tokens[row : row + 1], alone.tokens)
        assert found.pooled is not None and alone.pooled is not None
        assert torch.equal(found.pooled[row : row + 1], alone.pooled)


@pytest.mark.parametrize("on_disk", [True, False])
def test_no_text_is_encoded_twice(on_disk: bool, tmp_path: Path) -> None:
    encoder = CountingEncoder()
    cache = PromptCache(encoder, "bytes", tmp_path if on_disk else None)
    cache.fill(["a", "b", "a"])
    cache.batch(["b", "a", "c"])
    cache.batch(["c"])
    assert encoder.asked == ["a", "b", "c"]


def test_a_later_run_reads_from_disk_what_an_earlier_one_encoded(tmp_path: Path) -> None:
    first = PromptCache(CountingEncoder(), "bytes", tmp_path / "prompts").batch(["a cat", "ein Käse"])
    later = PromptCache(None, "bytes", tmp_path / "prompts").batch(["a cat", "ein Käse"])
    assert torch.equal(first.tokens, later.tokens)
    assert first.pooled is not None and later.pooled is not None
    assert torch.equal(first.pooled, later.pooled)


def test_masks_are_kept_with_the_tokens(tmp_path: Path) -> None:
    PromptCache(unpadded, "masked", tmp_path).fill(["ab"])
    found = PromptCache(None, "masked", tmp_path).batch(["ab", "ab"])
    assert found.mask is not None
    assert found.mask.shape == (2, 3)
    assert found.pooled is None


def test_a_released_encoder_is_asked_no_more(tmp_path: Path) -> None:
    cache = PromptCache(CountingEncoder(), "bytes", tmp_path)
    cache.fill(["a cat"])
    cache.release()
    assert cache.batch(["a cat"]).tokens.shape == (1, 4, 6)
    with pytest.raises(KintsugiError, match="a dog"):
        cache.batch(["a dog"])


def test_embeddings_of_another_encoder_are_not_taken(tmp_path: Path) -> None:
    PromptCache(CountingEncoder(), "bytes", tmp_path).fill(["a cat"])
    with pytest.raises(KintsugiError, match="a cat"):
        PromptCache(None, "other", tmp_path).batch(["a cat"])


def test_embeddings_of_unlike_lengths_are_refused() -> None:
    with pytest.raises(KintsugiError, match="unlike shapes"):
        PromptCache(unpadded, "masked", None).batch(["a", "ab"])


def test_more_texts_than_are_remembered_come_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "REMEMBERED", 2)
    encoder = CountingEncoder()
    cache = PromptCache(encoder, "bytes", tmp_path)
    texts = ["a", "b", "c", "d"]
    assert cache.batch(texts).tokens.shape == (4, 4, 6)
    assert torch.equal(cache.batch(texts[::-1]).tokens.flip(0), cache.batch(texts).tokens)
    assert encoder.asked == texts


def test_several_processes_may_fill_one_folder(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(fill_elsewhere, [tmp_path / "prompts"] * 2)
    assert len(list((tmp_path / "prompts").iterdir())) == 2
    found = PromptCache(None, "bytes", tmp_path / "prompts").batch(["a cat", "a dog"])
    assert torch.equal(found.tokens, PromptCache(CountingEncoder(), "bytes", None).batch(["a cat", "a dog"]).tokens)
