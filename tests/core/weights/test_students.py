"""What every student's file must be, whatever its method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from kintsugi.core.errors import FileAccessError, WeightsError
from kintsugi.core.methods.gendr import OneStepConstants
from kintsugi.core.weights import embedded
from kintsugi.core.weights.files import write_weights
from kintsugi.core.weights.generators import READERS
from kintsugi.core.weights.options import LoadOptions
from kintsugi.core.weights.students import Student, read_student
from safetensors.torch import save_file


def student(tmp_path: Path, **config: Any) -> Student:
    write_weights(tmp_path / "student.safetensors", {"weight": torch.zeros(1)}, config)
    return read_student(tmp_path / "student.safetensors", "gendr")


@pytest.mark.parametrize("method", READERS)
@pytest.mark.parametrize("other", READERS)
def test_the_weights_of_another_method_are_refused_by_name(method: str, other: str) -> None:
    if method == other:
        assert READERS[method].read(embedded.GENERATORS[method], LoadOptions()).name.startswith(method)
        return
    with pytest.raises(WeightsError, match=f"holds {other}, not {method}"):
        READERS[method].read(embedded.GENERATORS[other], LoadOptions())


def test_numbers_of_another_method_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="one_step numbers are not those of the method"):
        student(tmp_path, one_step={"mask_mode": "bias"}).constants(OneStepConstants)


def test_a_vae_lies_beside_its_student_and_nowhere_else(tmp_path: Path) -> None:
    assert student(tmp_path, vae="own.safetensors").vae_place() == tmp_path / "own.safetensors"
    assert student(tmp_path).vae_place() == "embedded"
    with pytest.raises(FileAccessError, match="leaves its folder"):
        student(tmp_path, vae="../../secret.safetensors").vae_place()


@pytest.mark.parametrize("metadata", ["{", "[1]"])
def test_a_configuration_that_is_no_json_object_is_refused(tmp_path: Path, metadata: str) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "student.safetensors", metadata={"kintsugi": metadata})
    with pytest.raises(WeightsError, match="configuration is no JSON"):
        read_student(tmp_path / "student.safetensors", "gendr")
