"""InstaRevive's dynamic control and gradients written once more from the paper, number by number in double precision."""

from __future__ import annotations

from math import ceil, floor, prod, sqrt
from typing import Any

import torch
from torch import Tensor

LEVELS = (1.1, 0.4, 0.15, 0.004)


def tables(kind: str, steps: int) -> tuple[list[float], list[float]]:
    """alpha and sigma by timestep."""
    first, last = (1e-4, 0.02) if kind == "linear" else (sqrt(0.00085), sqrt(0.012))
    betas = [first + (last - first) * index / (steps - 1) for index in range(steps)]
    betas = betas if kind == "linear" else [beta**2 for beta in betas]
    kept, products = 1.0, []
    for beta in betas:
        kept *= 1 - beta
        products.append(kept)
    return [sqrt(product) for product in products], [sqrt(1 - product) for product in products]


def entry(d: float, kappa: float, sigma: list[float], u: list[float]) -> dict[str, Any]:
    """A row's numbers of one kind of distance."""
    last = len(sigma) - 1
    reached = [t for t, level in enumerate(sigma) if level >= kappa * d]
    t_max = max(1, reached[0] if reached else last)
    low = ceil(t_max / 50)
    drawn = [low + floor(value * (t_max - low + 1)) for value in u]
    return {"d": d, "kappa_d": kappa * d, "T_max": t_max, "t_lo": low, "t_hi": t_max, "alpha_mix": t_max / last, "t": drawn}


def control(
    kind: str, steps: int, kappa: float, guidance: float, kl_weight: float, shape: tuple[int, ...], row: int
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and sidecar of a golden file; `row` is the one with gradients."""
    alpha, sigma = tables(kind, steps)
    direction, hq, noise, conditional, null, fake = (torch.randn(shape) for _ in range(6))
    outputs, u = [hq + level * direction for level in LEVELS], torch.rand(len(LEVELS), shape[0])
    rows = []
    for output, draws in zip(outputs, u.tolist(), strict=True):
        squares = sum(value**2 for value in (output.double() - hq.double()).flatten().tolist())
        literal, rms = sqrt(squares / shape[0]), sqrt(squares / prod(shape))
        rows.append({"literal": entry(literal, kappa, sigma, draws), "rms": entry(rms, kappa, sigma, draws)})
    used = rows[row]["rms"]
    tensors = {f"x.{index}": output for index, output in enumerate(outputs)}
    tensors |= {"x_hq": hq, "noise": noise, "eps_real.cond": conditional, "eps_real.null": null, "eps_fake": fake, "u": u}
    tensors |= {"alpha": torch.tensor(alpha, dtype=torch.float64), "sigma": torch.tensor(sigma, dtype=torch.float64)}
    told = {key: tensor.double() for key, tensor in tensors.items()}
    found = gradients(told, row, used, guidance, kl_weight)
    tensors |= {key: tensor.float() for key, tensor in found.items()} | {"t.used": torch.tensor(used["t"])}
    numbers = {
        "kappa": kappa,
        "schedule": kind,
        "T": steps,
        "guidance": guidance,
        "kl_weight": kl_weight,
        "rows": rows,
        "gradient_row": row,
    }
    return tensors, {"method": "InstaRevive dynamic score matching", **numbers}


def gradients(told: dict[str, Tensor], row: int, used: dict[str, Any], guidance: float, kl_weight: float) -> dict[str, Tensor]:
    """Sample by sample."""
    x, hq = told[f"x.{row}"], told["x_hq"]
    real = told["eps_real.null"] + guidance * (told["eps_real.cond"] - told["eps_real.null"])
    samples: dict[str, list[Tensor]] = {name: [] for name in ("x_t", "x0_real", "x0_fake", "grad.eq5", "grad.score", "grad.normalised")}
    for index, t in enumerate(used["t"]):
        a, s, gap = told["alpha"][t], told["sigma"][t], real[index] - told["eps_fake"][index]
        x_t = a * x[index] + s * told["noise"][index]
        clean_real, clean_fake = (x_t - s * real[index]) / a, (x_t - s * told["eps_fake"][index]) / a
        samples["x_t"].append(x_t)
        samples["x0_real"].append(clean_real)
        samples["x0_fake"].append(clean_fake)
        samples["grad.eq5"].append(s * gap)
        samples["grad.score"].append(gap / s)
        samples["grad.normalised"].append((s / a) * gap / (x[index] - clean_real).abs().mean())
    stacked = {name: torch.stack(tensors) for name, tensors in samples.items()}
    gradient, mse, share = stacked["grad.normalised"], ((x - hq) ** 2).mean(), used["alpha_mix"]
    surrogate = 0.5 * (gradient**2).mean()
    return {
        **stacked, "eps_real.cfg": real, "grad.surrogate_sum_over_B": gradient / len(x), "loss.reg_mse": mse,
        "loss.dsm_surrogate_mean": surrogate, "loss.total": share * mse + (1 - share) * kl_weight * surrogate,
    }  # fmt: skip
