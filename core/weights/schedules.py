"""The noise schedule that a prior was trained with, as its folder's scheduler tells it, or as its family has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..diffusion import NoiseSchedule, ddpm_schedule, linear_betas, scaled_linear_betas
from ..errors import WeightsError
from .diffusers_folders import read_json
from .inspection import tensor_shapes

# Settings that say how predictions are read, with what samplers of many steps expect; what is left out means the same.
EXPECTED: dict[str, Any] = {
    "prediction_type": "epsilon",
    "num_train_timesteps": 1000,
    "trained_betas": None,
    "rescale_betas_zero_snr": False,
}
BETAS = {"scaled_linear": scaled_linear_betas, "linear": linear_betas}
# By such a tensor, of no other use, single files tell that they predict v or were trained on another schedule.
FOREIGN_MARKS = ("v_pred", "edm_vpred.sigma_max", "edm_mean")

_WAY_OUT = "Choose a model that predicts the noise (epsilon), such as SDXL base 1.0."


def schedule_at(place: Path | None, betas: tuple[float, float]) -> NoiseSchedule:
    """The schedule of a diffusers folder or single file. Raises WeightsError for one that does not predict the noise.

    betas: first and last, scaled linear, where the place tells nothing.
    """
    if place is not None and place.is_file():
        _require_no_marks(place)
    path = place / "scheduler" / "scheduler_config.json" if place else None
    if path is None or not path.is_file():
        return ddpm_schedule(scaled_linear_betas(*betas))
    return _schedule_of(read_json(path), str(path))


def _require_no_marks(path: Path) -> None:
    shapes = tensor_shapes(path)
    mark = next((name for name in FOREIGN_MARKS if name in shapes), None)
    if mark:
        raise WeightsError(f"is marked by {mark}: it does not predict the noise (epsilon).", where=str(path), way_out=_WAY_OUT)


def _schedule_of(config: dict[str, Any], where: str) -> NoiseSchedule:
    for name, expected in EXPECTED.items():
        found = config.get(name, expected)
        if found != expected:
            raise WeightsError(f"{name} is {found!r}, expected {expected!r}.", where=where, way_out=_WAY_OUT)
    kind, first, last = (config.get(name) for name in ("beta_schedule", "beta_start", "beta_end"))
    if kind not in BETAS or not isinstance(first, float) or not isinstance(last, float):
        found = f"betas {kind!r} from {first!r} to {last!r}, expected numbers and {' or '.join(BETAS)}"
        raise WeightsError(f"tells {found}.", where=where, way_out="Copy the release's scheduler_config.json again.")
    return ddpm_schedule(BETAS[kind](first, last))
