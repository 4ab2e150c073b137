"""A golden folder of GenDR's form with other networks and other numbers: the paper's equations once more, in double precision."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

MEANING = {
    "disc.*": "head = conv3x3 (padding 1) - GroupNorm({groups}) - SiLU - conv1x1",
    "loss.cida.*": "lambda1 cid + {adversarial} adv_G + {representation} repa",
}


@dataclass(frozen=True)
class Numbers:
    """What differs between two folders of the form."""

    batch: int
    size: tuple[int, int]
    widths: tuple[int, int]
    channels: int
    tokens: tuple[int, int]
    kappa: float
    xi: float
    t_s: int
    betas: tuple[float, float]
    steps: int
    head: tuple[int, int]
    projector: tuple[int, int]
    lambdas: tuple[float, float, float]


WIDE = Numbers(3, (8, 12), (8, 24), 4, (5, 20), 2.5, 1.2, 300, (0.0005, 0.02), 400, (12, 3), (10, 14), (4.0, 0.05, 0.3))
SINGLE = Numbers(1, (6, 4), (16, 16), 6, (3, 8), 1.0, 0.7, 7, (0.001, 0.01), 1000, (8, 8), (6, 5), (2.5, 0.2, 1.5))


def write_folder(folder: Path) -> None:
    folder.mkdir()
    torch.manual_seed(12)
    torch.set_default_dtype(torch.float64)
    try:
        write_step(folder, "wide", WIDE)
        write_step(folder, "single", SINGLE)
    finally:
        torch.set_default_dtype(torch.float32)


def write_step(folder: Path, name: str, numbers: Numbers) -> None:
    config = unet_config(numbers)
    tensors = Step(numbers, config).tensors()
    stored = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}
    save_file({key: tensor.detach().contiguous() for key, tensor in stored.items()}, folder / f"{name}.safetensors")
    told = {"groups": numbers.head[1], "adversarial": numbers.lambdas[1], "representation": numbers.lambdas[2]}
    first, last = numbers.betas
    sidecar = {
        "method": "GenDR", "unet_config": config, "t_s": numbers.t_s, "kappa": numbers.kappa, "xi": numbers.xi,
        "schedule": f"{numbers.steps} steps, beta = linspace(sqrt({first}), sqrt({last}))^2", "file": f"{name}.safetensors",
        "meaning": {key: text.format(**told) for key, text in MEANING.items()}, "tolerance": {"limit": 1e-4},
        "tensors": {key: list(tensor.shape) for key, tensor in stored.items()},
    }  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(sidecar))


def unet_config(numbers: Numbers) -> dict[str, Any]:
    return {
        "sample_size": 8, "in_channels": numbers.channels, "out_channels": numbers.channels, "block_out_channels": list(numbers.widths),
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": 1, "norm_num_groups": 4, "cross_attention_dim": numbers.tokens[1], "attention_head_dim": 4,
    }  # fmt: skip


class Step:
    """Every tensor of one step of CiDA, in the order of the paper."""

    def __init__(self, numbers: Numbers, config: dict[str, Any]) -> None:
        self.numbers = numbers
        self.networks = {name: UNet2DConditionModel(**config) for name in ("theta", "phi", "psi")}
        width, groups = numbers.head
        self.head = nn.Sequential(
            nn.Conv2d(numbers.widths[1], width, 3, padding=1), nn.GroupNorm(groups, width), nn.SiLU(), nn.Conv2d(width, 1, 1)
        )
        inner, outer = numbers.projector
        self.projector = nn.Sequential(
            nn.Linear(numbers.widths[0], inner), nn.SiLU(), nn.Linear(inner, inner), nn.SiLU(), nn.Linear(inner, outer)
        )
        shape = (numbers.batch, numbers.channels, *numbers.size)
        self.z_l, self.z_h, self.noise_g, self.noise_h = (torch.randn(shape) for _ in range(4))
        self.prompt, self.null = (torch.randn(1, *numbers.tokens) for _ in range(2))
        self.t = torch.randint(20, numbers.steps - 20, (numbers.batch,))
        first, last = numbers.betas
        products = (1 - torch.linspace(first**0.5, last**0.5, numbers.steps) ** 2).cumprod(0)
        self.signal, self.noise = products.sqrt(), (1 - products).sqrt()
        self.found: dict[str, Tensor] = {}
        self.features: dict[str, Tensor] = {}

    def tensors(self) -> dict[str, Tensor]:
        with torch.no_grad():
            self.one_step()
        self.z_g = self.found["z_g.literal"].clone().requires_grad_()
        self.z_t = self.noised(self.z_g, self.noise_g)
        self.found |= {"alpha_bar": self.signal, "beta_bar": self.noise, "z_t": self.z_t}
        self.in_noise()
        self.in_latents()
        self.adversarial()
        one, two, three = self.numbers.lambdas
        total = one * self.found["loss.cid"] + two * self.found["loss.adv_G"] + three * self.found["loss.repa"]
        inputs = {name: getattr(self, name) for name in ("z_l", "z_h", "t", "noise_g", "noise_h", "prompt")}
        weights = {**self.networks, "head": self.head, "proj": self.projector}
        stored = {f"w.{name}.{key}": tensor for name, network in weights.items() for key, tensor in network.state_dict().items()}
        return {**inputs, "null_prompt": self.null, **stored, **self.found, f"loss.cida.lambda1_{one:g}": total}

    def told(self, network: str, z_t: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
        found = self.networks[network](z_t, t, prompt.expand(len(z_t), -1, -1)).sample
        assert isinstance(found, Tensor)
        return found

    def at(self, table: Tensor) -> Tensor:
        return table[self.t].view(-1, 1, 1, 1)

    def noised(self, latent: Tensor, noise: Tensor) -> Tensor:
        return self.at(self.signal) * latent + self.at(self.noise) * noise

    def clean(self, z_t: Tensor, eps: Tensor) -> Tensor:
        return (z_t - self.at(self.noise) * eps) / self.at(self.signal)

    def one_step(self) -> None:
        theta, t_s = self.networks["theta"], self.numbers.t_s
        theta.down_blocks[0].register_forward_hook(lambda module, inputs, output: self.features.update(down0=output[0]))
        eps = self.told("theta", self.z_l, torch.full((self.numbers.batch,), t_s), self.prompt)
        readings = {"literal": (0.5, 0.5), "variance_reading": (0.5**0.5, 0.5**0.5), "schedule": (self.signal[t_s], self.noise[t_s])}
        self.found |= {f"z_g.{name}": (self.z_l - beta * eps) / alpha for name, (alpha, beta) in readings.items()}
        features = self.features["down0"]
        projected = self.projector(features.flatten(2).permute(0, 2, 1))
        dino = torch.randn_like(projected)
        cosine = (projected * dino).sum(-1) / (projected.norm(dim=-1) * dino.norm(dim=-1))
        self.found |= {"eps_theta": eps, "feature.down0": features, "dino_tokens": dino, "repa.projected": projected}
        self.found["loss.repa"] = -cosine.mean()

    def in_noise(self) -> None:
        for name in ("phi", "psi"):
            self.found[f"eps_{name}.cond"] = self.told(name, self.z_t, self.t, self.prompt)
            self.found[f"eps_{name}.null"] = self.told(name, self.z_t, self.t, self.null)
        real, fake = self.found["eps_phi.cond"], self.found["eps_psi.cond"]
        self.found["loss.L1_eps"] = (real - fake).square().mean()
        self.found["loss.L2_eps"] = ((real - fake) * (real - self.noise_g)).mean()
        self.found["grad.vsd_eps"] = real - fake

    def in_latents(self) -> None:
        guided = {}
        for name in ("phi", "psi"):
            null, told = (self.clean(self.z_t, self.found[f"eps_{name}.{kind}"]) for kind in ("null", "cond"))
            guided[name] = self.found[f"f_{name}.kappa"] = null + self.numbers.kappa * (told - null)
        real, gap = guided["phi"], guided["phi"] - guided["psi"]
        weight = 1 / (self.z_h - real.detach()).abs().mean(dim=(1, 2, 3))
        shaped = weight.view(-1, 1, 1, 1)
        losses = {"L1": gap**2, "L2": gap * (real - self.z_g), "L3": gap * (real - self.z_h)}
        found = {name: (shaped * values).mean() for name, values in losses.items()}
        found["cid"] = found["L3"] - self.numbers.xi * found["L1"]
        self.found["w_t"] = weight
        for name, loss in found.items():
            self.found[f"loss.{name}"] = loss
            self.found[f"grad.{name}"] = torch.autograd.grad(loss, self.z_g, retain_graph=True)[0]
        fixed = self.z_g.detach()
        psi = self.clean(self.noised(fixed, self.noise_g), self.found["eps_psi.cond"].detach())
        self.found["loss.psi"] = (psi - fixed).square().mean()
        noised = self.noised(self.z_h, self.noise_h)
        self.found["loss.phi"] = (self.clean(noised, self.told("phi", noised, self.t, self.prompt)) - self.z_h).square().mean()

    def adversarial(self) -> None:
        self.networks["phi"].mid_block.register_forward_hook(lambda module, inputs, output: self.features.update(mid=output))
        logits = {}
        for name, latent, noise in (("fake", self.z_g, self.noise_g), ("real", self.z_h, self.noise_h)):
            self.told("phi", self.noised(latent, noise), self.t, self.prompt)
            logits[name] = self.found[f"disc.logit_{name}"] = self.head(self.features["mid"])
        self.found["loss.adv_G"] = F.softplus(-logits["fake"]).mean()
        self.found["grad.adv"] = torch.autograd.grad(self.found["loss.adv_G"], self.z_g, retain_graph=True)[0]
        self.found["loss.adv_D"] = (F.softplus(logits["fake"]) + F.softplus(-logits["real"])).mean()
