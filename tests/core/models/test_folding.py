"""What a fixed prompt and timestep decide is computed once, and the networks say the same as before."""

from __future__ import annotations

import copy

import pytest
import torch
from kintsugi.core.errors import BadValueError
from kintsugi.core.methods.gendr import CONSTANTS, GenDR, OneStepConstants
from kintsugi.core.models.folding import Constant, fold_constants, memory_of
from kintsugi.core.models.mini import build_unet, unet_config
from kintsugi.core.models.prompt import PromptEmbedding


@pytest.fixture
def student() -> GenDR:
    torch.manual_seed(0)
    unet = build_unet(unet_config((16, 16), 4, 1, 8, 4))
    return GenDR(unet, torch.randn(1, 2, 8), OneStepConstants(1.0, 0.5, 500)).eval()


def test_a_folded_student_says_the_same_for_any_size_and_batch(student: GenDR) -> None:
    folded = copy.deepcopy(student)
    folded.fold()
    for shape in ((1, 4, 8, 8), (3, 4, 16, 10)):
        latent = torch.randn(shape)
        expected, found = student.restore_latent(latent, None), folded.restore_latent(latent, None)
        assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_folding_drops_the_modules_and_their_memory(student: GenDR) -> None:
    before = memory_of(student)
    student.fold()
    assert memory_of(student) < before
    assert isinstance(student.unet.time_embedding, Constant)
    assert not [name for name in student.state_dict() if "attn2.to_k.weight" in name or "time_emb_proj.weight" in name]


def test_a_folded_student_can_be_moved_to_another_dtype(student: GenDR) -> None:
    student.fold()
    assert torch.nn.Module.to(student, dtype=torch.bfloat16).restore_latent(torch.randn(1, 4, 8, 8), None).isfinite().all()


def test_another_prompt_is_taken_before_folding_and_refused_after_it(student: GenDR) -> None:
    latent, prompt = torch.randn(1, 4, 8, 8), PromptEmbedding(torch.randn(1, 5, 8))
    assert not torch.equal(student.with_prompt(prompt).restore_latent(latent, None), student.restore_latent(latent, None))
    student.fold()
    with pytest.raises(BadValueError, match="Turn fold_constants off"):
        student.with_prompt(prompt)


def test_folding_runs_on_the_meta_device(student: GenDR) -> None:
    before = memory_of(student)
    empty = torch.nn.Module.to(student, "meta")
    empty.fold()
    assert memory_of(empty) < before


def test_a_pattern_that_fits_nothing_is_told(student: GenDR) -> None:
    with pytest.raises(ValueError, match="nothing in the model fits no_such_module"):
        fold_constants(student.unet, (*CONSTANTS, "no_such_module"), lambda: student(torch.randn(1, 4, 8, 8)))
