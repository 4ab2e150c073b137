"""Any prompt has an embedding of its own, and the same one again."""

from __future__ import annotations

import torch
from kintsugi.core.models.byte_text import ByteTextEncoder
from kintsugi.core.runtime import LocalHost, using_host


def encoder() -> ByteTextEncoder:
    torch.manual_seed(0)
    return ByteTextEncoder(tokens=77, width=12, pooled=5)


def test_a_prompt_of_any_length_has_the_form_of_sdxl() -> None:
    for prompt in ("", "ein Foto, schärfer", "word " * 100):
        found = encoder().encode(prompt)
        assert found.tokens.shape == (1, 77, 12) and found.mask is None
        assert found.pooled is not None and found.pooled.shape == (1, 5)
        assert 0.2 < found.pooled.std() < 5


def test_prompts_differ_by_every_byte_and_its_place() -> None:
    texts = ("", "a", "ab", "ba", "ä")
    found = [encoder().encode(text) for text in texts]
    for index, one in enumerate(found):
        assert torch.equal(one.tokens, encoder().encode(texts[index]).tokens)
        assert all(not torch.equal(one.tokens, other.tokens) for other in found[:index])


def test_a_prompt_is_the_same_in_every_micro_batch() -> None:
    expected = encoder().encode("clean").tokens
    with using_host(LocalHost(device=torch.device("cpu"), micro_batch=3)):
        assert torch.equal(encoder().encode("clean").tokens, expected)
