"""What a network says about a noised latent leads back to the clean one, whatever it was taught to say."""

from __future__ import annotations

import pytest
import torch
from kintsugi.core.diffusion import NoiseSchedule, Prediction, constant_schedule
from torch import Tensor

TIMES = torch.tensor([0.2, 0.7])
ANGLE = NoiseSchedule(lambda t: torch.cos(t), lambda t: torch.sin(t))
FLOW = NoiseSchedule(lambda t: 1 - t, lambda t: t)


@pytest.mark.parametrize(("schedule", "kind"), [(ANGLE, "epsilon"), (ANGLE, "v"), (FLOW, "epsilon"), (FLOW, "velocity")])
def test_the_exact_prediction_gives_the_clean_latent_back(schedule: NoiseSchedule, kind: Prediction) -> None:
    clean, eps = torch.randn(2, 4, 3, 5, dtype=torch.float64), torch.randn(2, 4, 3, 5, dtype=torch.float64)
    signal, noise = (values.reshape(2, 1, 1, 1).double() for values in (schedule.signal(TIMES), schedule.noise(TIMES)))
    said: dict[Prediction, Tensor] = {"epsilon": eps, "v": signal * eps - noise * clean, "velocity": eps - clean}
    noised = schedule.add_noise(clean, eps, TIMES)
    # The schedules' own values are float32.
    torch.testing.assert_close(schedule.clean(noised, said[kind], TIMES, kind), clean, rtol=1e-5, atol=1e-6)


def test_constants_hold_at_every_timestep_and_for_one_timestep_of_a_whole_batch() -> None:
    latent, eps = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    literal = constant_schedule(0.5, 0.5).clean(latent, eps, torch.tensor([500]), "epsilon")
    torch.testing.assert_close(literal, 2 * latent - eps)
