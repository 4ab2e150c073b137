"""InstantIR's three losses against values worked out by hand from the paper's formulas, in plain arithmetic."""

from __future__ import annotations

from math import cos, pi, sqrt

import pytest
import torch
from kintsugi.core.diffusion import ddpm_schedule, scaled_linear_betas
from kintsugi.core.methods.instantir_networks import single_step
from kintsugi.training.instantir_parts import DropRates
from kintsugi.training.losses import distillation_loss, late_noise_weight, noise_loss, teacher_interval, teacher_step
from torch import Tensor

SCHEDULE = ddpm_schedule(scaled_linear_betas())
# z_s, and what teacher and student say of it and of z_t, one number per sample.
Z_S = (0.7, -1.3)
CONDITIONAL, UNCONDITIONAL = (0.4, -0.9), (0.1, -1.0)
STUDENT, LATER = (0.35, -0.8), (0.3, 0.2)
GUIDANCE = (3.0, 12.5)
NUMBERS = (1, 37)


def levels(timestep: int) -> tuple[float, float]:
    """a_t and b_t: the roots of the running product of 1 - beta and of what it lacks to one."""
    product, first, last = 1.0, sqrt(0.00085), sqrt(0.012)
    for step in range(timestep + 1):
        product *= 1 - (first + (last - first) * step / 999) ** 2
    return sqrt(product), sqrt(1 - product)


def jumped(z: float, eps: float, timestep: int) -> float:
    """c_skip z + c_out x_0 with T = 10 t and sigma_data 0.5."""
    (a, b), scaled = levels(timestep), 10.0 * timestep
    return 0.25 / (scaled**2 + 0.25) * z + scaled / sqrt(scaled**2 + 0.25) * (z - b * eps) / a


def taught(z: float, conditional: float, unconditional: float, s: int, t: int, guidance: float) -> float:
    """One guided DDIM step from s to t."""
    (a, b), (a_next, b_next) = levels(s), levels(t)
    clean_conditional, clean_unconditional = (z - b * conditional) / a, (z - b * unconditional) / a
    clean = clean_conditional + guidance * (clean_conditional - clean_unconditional)
    return a_next * clean + b_next * (conditional + guidance * (conditional - unconditional))


def planes(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).reshape(-1, 1, 1, 1)


def test_stage_one_is_the_mean_square_of_what_is_wrong_with_the_noise() -> None:
    noise, said = torch.tensor([[1.0, -2.0], [0.5, 0.0]]), torch.tensor([[0.0, -1.0], [0.5, 3.0]])
    by_hand = (1.0**2 + 1.0**2 + 0.0**2 + 3.0**2) / 4
    assert float(noise_loss(said.view(2, 1, 1, 2), noise.view(2, 1, 1, 2))) == pytest.approx(by_hand, rel=1e-6)


def test_stage_one_may_count_strong_noise_more() -> None:
    timesteps = torch.tensor([0, 250, 500, 999])
    by_hand = [0.5, 1 - 0.5 * cos(pi / 4), 1.0, 1 - 0.5 * cos(0.999 * pi)]
    assert late_noise_weight(timesteps).tolist() == pytest.approx(by_hand, rel=1e-6)
    # Errors of 1, 2, 3 and 4 everywhere in one sample each.
    wrong = planes((1.0, 2.0, 3.0, 4.0)).expand(4, 1, 2, 2)
    weighted = sum(weight * error**2 for weight, error in zip(by_hand, (1, 2, 3, 4), strict=True)) / 4
    assert float(noise_loss(wrong, torch.zeros_like(wrong), late_noise_weight(timesteps))) == pytest.approx(weighted, rel=1e-6)


def test_the_teacher_has_fifty_steps_of_twenty_timesteps() -> None:
    s, t = teacher_interval(torch.arange(1, 51))
    assert s.tolist() == [20 * number - 1 for number in range(1, 51)] and (s[0], s[-1]) == (19, 999)
    assert t.tolist() == [0, *(20 * number - 1 for number in range(1, 50))]


def test_the_teacher_takes_a_guided_step_of_ddim() -> None:
    s, t = teacher_interval(torch.tensor(NUMBERS))
    found = teacher_step(SCHEDULE, planes(Z_S), planes(CONDITIONAL), planes(UNCONDITIONAL), s, t, torch.tensor(GUIDANCE))
    intervals = ((19, 0), (739, 719))
    by_hand = [taught(*row, *interval, w) for row, interval, w in zip(rows(), intervals, GUIDANCE, strict=True)]
    assert found.flatten().tolist() == pytest.approx(by_hand, rel=2e-5)


def rows() -> list[tuple[float, float, float]]:
    return list(zip(Z_S, CONDITIONAL, UNCONDITIONAL, strict=True))


def test_distillation_compares_two_jumps_by_a_pseudo_huber_distance() -> None:
    s, t = teacher_interval(torch.tensor(NUMBERS))
    z_t = teacher_step(SCHEDULE, planes(Z_S), planes(CONDITIONAL), planes(UNCONDITIONAL), s, t, torch.tensor(GUIDANCE))
    loss = distillation_loss(single_step(SCHEDULE, planes(Z_S), planes(STUDENT), s), single_step(SCHEDULE, z_t, planes(LATER), t))
    by_hand = 0.0
    for index, (begin, end) in enumerate(((19, 0), (739, 719))):
        later = taught(*rows()[index], begin, end, GUIDANCE[index])
        difference = jumped(Z_S[index], STUDENT[index], begin) - jumped(later, LATER[index], end)
        by_hand += (sqrt(difference**2 + 0.001**2) - 0.001) / 2
    assert float(loss) == pytest.approx(by_hand, rel=2e-5)


def test_the_distance_is_quadratic_near_zero_and_straight_far_from_it() -> None:
    zero = torch.zeros(1, 1, 1, 1)
    for difference in (0.0, 1e-4, 0.001, 2.0):
        by_hand = sqrt(difference**2 + 1e-6) - 0.001
        assert float(distillation_loss(zero + difference, zero)) == pytest.approx(by_hand, rel=1e-3, abs=1e-9)


def test_nothing_flows_into_the_target_of_the_distillation() -> None:
    student, target = torch.tensor([0.3], requires_grad=True), torch.tensor([0.1], requires_grad=True)
    distillation_loss(student, target).backward()
    assert target.grad is None
    assert student.grad is not None and float(student.grad) == pytest.approx(0.2 / sqrt(0.2**2 + 0.001**2), rel=1e-5)


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        (DropRates(image=0.05, text=0.05, both=0.05), "image image text text both both neither neither"),
        (DropRates(text=0.85, both=0.15), "text text text text text text both both"),
        (DropRates(), "neither neither neither neither neither neither neither neither"),
    ],
)
def test_one_number_decides_what_is_hidden_by_intervals_that_follow_each_other(rates: DropRates, expected: str) -> None:
    names = {(True, False): "image", (False, True): "text", (True, True): "both", (False, False): "neither"}
    image, text = rates.dropped(torch.tensor([0.0, 0.0499, 0.0501, 0.0999, 0.1001, 0.1499, 0.8501, 0.9999]))
    assert " ".join(names[pair] for pair in zip(image.tolist(), text.tolist(), strict=True)) == expected
