"""GenDR's losses and gradients against the golden step of CiDA."""

from __future__ import annotations

from pathlib import Path

import parity
import pytest
import torch
from kintsugi.training.losses import cid_weight, with_gradient
from originals.gendr_folder import write_folder

CHECKS = parity.run_parity("gendr", Path(__file__).parents[1] / "golden" / "gendr", "training")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.tensor)
def test_a_step_of_cida_matches_the_reference(check: parity.Check) -> None:
    assert check.passed, parity.line(check)


def test_every_tensor_of_the_reference_that_is_no_input_is_checked() -> None:
    assert len(CHECKS) == 36 and not any("no check knows" in check.note for check in CHECKS)


def test_other_networks_and_other_numbers_hold_too(tmp_path: Path) -> None:
    write_folder(tmp_path / "other")
    checks = parity.run_parity("gendr", tmp_path / "other", "training")
    assert len(checks) == 2 * 36 and [parity.line(check) for check in checks if not check.passed] == []


def test_a_loss_with_a_given_gradient_has_it_divided_by_the_number_of_elements() -> None:
    output, gradient = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3)
    (found,) = torch.autograd.grad(with_gradient(output, gradient), output)
    assert torch.allclose(found, gradient / 6, atol=1e-7)


def test_the_weight_of_a_latent_that_is_met_is_bounded() -> None:
    latent = torch.randn(2, 4, 3, 3)
    assert torch.allclose(cid_weight(latent, latent), torch.full((2, 1, 1, 1), 1e5))
