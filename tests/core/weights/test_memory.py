"""What `kintsugi models check` says of memory is what the loaded methods hold."""

from __future__ import annotations

import pytest
from kintsugi.core.models.folding import memory_of
from kintsugi.core.runtime import LocalHost
from kintsugi.core.weights import embedded
from kintsugi.core.weights.files import read_weights, write_weights
from kintsugi.core.weights.generators import METHODS, load_generator
from kintsugi.core.weights.memory import MethodMemory, method_memories
from kintsugi.core.weights.options import LoadOptions
from torch import nn


def memory(method: str, weights: str) -> MethodMemory:
    return next(found for found in method_memories() if (found.method, found.weights) == (method, weights))


def held(method: str, fold_constants: bool) -> int:
    network = load_generator(method, "embedded", "fp16", LoadOptions(fold_constants=fold_constants)).method
    assert isinstance(network, nn.Module)
    return memory_of(network)


@pytest.mark.parametrize("method", METHODS)
def test_the_embedded_weights_hold_what_is_said(method: str) -> None:
    found = memory(method, "embedded")
    assert (found.as_published, found.as_we_run_it) == (held(method, False), held(method, True))


def test_stable_diffusion_3_saves_a_third_and_the_unmerged_adapter() -> None:
    found = memory("tsd-sr", "full size")
    parameters, positions, adapter = 2_028_328_000, 56_623_104, 89_268_224
    prompt = 333 * 4096 + 2048
    assert found.as_published == 2 * (parameters + positions + adapter + prompt)
    assert found.as_we_run_it <= 0.65 * found.as_published


def test_a_student_in_the_models_folder_is_measured_in_its_own_dtype(host: LocalHost) -> None:
    import torch

    path = host.folders.models / "kintsugi" / "gendr" / "mine.safetensors"
    tensors, config = read_weights(embedded.GENERATORS["gendr"])
    write_weights(path, tensors, config, torch.float32)
    found = memory("gendr", "gendr/mine.safetensors")
    assert (found.dtype, found.as_we_run_it) == ("F32", 2 * held("gendr", True))
    assert not [other for other in method_memories([path]) if other.weights == "gendr/mine.safetensors"]
