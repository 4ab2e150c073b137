"""GenDR's one step against the golden vectors."""

from __future__ import annotations

import parity
import pytest
import torch
from golden_files import GOLDEN
from kintsugi.core.runtime import LocalHost, using_host


def test_one_step_matches_the_reference_in_every_reading_of_its_constants() -> None:
    checks = parity.run_parity("gendr", GOLDEN / "gendr", "inference")
    assert [check.tensor for check in checks] == ["z_g.literal", "z_g.variance_reading", "z_g.schedule"]
    assert [parity.line(check) for check in checks if not check.passed] == []


@pytest.mark.parametrize("micro_batch", [1, 4])
def test_one_step_does_not_depend_on_the_micro_batch(micro_batch: int) -> None:
    with using_host(LocalHost(device=torch.device("cpu"), micro_batch=micro_batch)):
        assert all(check.passed for check in parity.run_parity("gendr", GOLDEN / "gendr", "inference"))
