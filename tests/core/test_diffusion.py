"""What a network says about a noised latent leads back to the clean one, whatever it was taught to say."""

from __future__ import annotations

import pytest
import torch
from kintsugi.core.diffusion import NoiseSchedule, Prediction, constant_schedule, flow_schedule, shifted_sigmas
from torch import Tensor

TIMES = torch.tensor([0.2, 0.7])
ANGLE = NoiseSchedule(lambda t: torch.cos(t), lambda t: torch.sin(t))
FLOW = NoiseSchedule(lambda t: 1 - t, lambda t: t)


@pytest.mark.parametrize(("schedule", "kind"), [(ANGLE, "epsilon"), (ANGLE, "v"), (FLOW, "epsilon"), (FLOW, "velocity")])
def test_the_exact_prediction_gives_the_clean_latent_and_the_noise_back(schedule: NoiseSchedule, kind: Prediction) -> None:
    clean, eps = torch.randn(2, 4, 3, 5, dtype=torch.float64), torch.randn(2, 4, 3, 5, dtype=torch.float64)
    signal, noise = (values.reshape(2, 1, 1, 1).double() for values in (schedule.signal(TIMES), schedule.noise(TIMES)))
    said: dict[Prediction, Tensor] = {"epsilon": eps, "v": signal * eps - noise * clean, "velocity": eps - clean}
    noised = schedule.add_noise(clean, eps, TIMES)
    # The schedules' own values are float32.
    torch.testing.assert_close(schedule.clean(noised, said[kind], TIMES, kind), clean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(schedule.eps(noised, said[kind], TIMES, kind), eps, rtol=1e-5, atol=1e-6)


def test_constants_hold_at_every_timestep_and_for_one_timestep_of_a_whole_batch() -> None:
    latent, eps = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    literal = constant_schedule(0.5, 0.5).clean(latent, eps, torch.tensor([500]), "epsilon")
    torch.testing.assert_close(literal, 2 * latent - eps)


def test_the_flow_reads_its_noise_level_off_the_timestep() -> None:
    clean, eps, timesteps = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4), torch.tensor([1000.0, 500.0, 0.0])
    noised = flow_schedule().add_noise(clean, eps, timesteps)
    torch.testing.assert_close(noised, torch.stack([eps[0], (clean[1] + eps[1]) / 2, clean[2]]))
    torch.testing.assert_close(flow_schedule().clean(noised, eps - clean, timesteps, "velocity"), clean)


def test_a_shift_of_one_spreads_the_noise_levels_evenly_and_a_larger_one_moves_them_up() -> None:
    torch.testing.assert_close(shifted_sigmas(4, 1.0), torch.tensor([1.0, 0.75, 0.5, 0.25]))
    torch.testing.assert_close(
        shifted_sigmas(1000, 3.0)[[0, 50, 949, 999]], torch.tensor([1.0, 0.98276, 0.13884, 0.0029940]), rtol=1e-4, atol=0
    )
