"""A golden folder of TSD-SR's iteration with other numbers, by the release's loop written once more: adapters of peft, plain loops.

Nothing of ours is used here, so that what agrees with it agrees with the original.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from originals.tsd_sr import MANIFEST, random_networks
from originals.tsd_sr_folder import TRANSFORMER, VAE, tensors_of, write
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

RANK, ALPHA, ROWS = 3, 6, 3
SHIFT = 2.5


@dataclass
class Loop:
    """The networks with their adapters, each a copy of its own, and what a run of the script is told."""

    student: Any
    vae: Any
    teacher: Any
    auxiliary: Any
    prompts: dict[str, Tensor]
    points: int
    stride: int
    bias: int | None
    shares: list[float]
    balance: float
    guidance: float

    def guided(self, network: Any, latent: Tensor, timestep: Tensor) -> Tensor:
        null, told = (
            network(latent, tokens, pooled, timestep).sample
            for tokens, pooled in (
                (self.prompts["null_prompt_embeds"].repeat(ROWS, 1, 1), self.prompts["null_pool_embeds"].repeat(ROWS, 1)),
                (self.prompts["batch_prompt_embeds"], self.prompts["batch_pool_embeds"]),
            )
        )
        return null + self.guidance * (told - null)

    def run(self, given: dict[str, Tensor], released: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Every quantity of the iteration, and the gradients of every factor."""
        uniform = 1 - torch.arange(1000) / 1000
        sigmas = SHIFT * uniform / (1 + (SHIFT - 1) * uniform)
        found: dict[str, Tensor] = {}
        mean, log_variance = self.vae.encode(given["lr"]).latent_dist.parameters.chunk(2, dim=1)
        latent = (mean + (0.5 * log_variance).exp() * given["vae_noise"]) * VAE["scaling_factor"]
        told = self.prompts["prompt_embeds"].repeat(ROWS, 1, 1), self.prompts["pool_embeds"].repeat(ROWS, 1)
        velocity = self.student(latent, *told, torch.full((ROWS,), 1000.0)).sample
        z_hat = latent - velocity
        image = (self.vae.decode(z_hat / VAE["scaling_factor"]).sample.clamp(-1, 1) + 1) / 2
        found |= {"model_input": latent, "model_pred": velocity, "z_hat": z_hat, "image_student": image}
        with torch.no_grad():
            vsd, tsm = self.directions(z_hat, given, sigmas, found)
        tsd = self.balance * vsd + (1 - self.balance) * tsm
        distillation = 0.5 * ((z_hat - (z_hat - tsd).detach()) ** 2).mean()
        mse = ((z_hat - given["latent_hr"]) ** 2).mean()
        found |= {"grad_vsd": vsd, "grad_tsm": tsm, "grad_tsd": tsd, "dtsd_dzhat": tsd / tsd.numel()}
        found |= {"tsd_loss": distillation[None], "mse_loss": mse[None], "loss_g": (mse + distillation)[None]}
        (mse if released else mse + distillation).backward()
        self.auxiliary_step(z_hat.detach(), given, sigmas, found).backward()
        networks = {"transformer": self.student, "vae": self.vae, "reg": self.auxiliary}
        gradients = {
            f"grad.{part}.{name}": parameter.grad.clone()
            for part, network in networks.items()
            for name, parameter in network.named_parameters()
            if "lora_" in name and parameter.grad is not None
        }
        return {name: tensor.detach() for name, tensor in found.items()}, gradients

    def directions(self, z_hat: Tensor, given: dict[str, Tensor], sigmas: Tensor, found: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The first sample's index is everybody's but for the noise that is added."""
        first = int(given["noised_index"][0])
        last = min(first + self.points * self.stride + (self.bias or 0), 999)
        places = np.floor(np.linspace(first, last, self.points + 1)).astype(int)
        found["dasm_indices"] = torch.from_numpy(places)
        own = sigmas[given["noised_index"]].view(-1, 1, 1, 1)
        fake, real = (own * given["noise"] + (1 - own) * latent for latent in (z_hat, given["latent_hr"]))
        vsd, tsm = torch.zeros_like(z_hat), torch.zeros_like(z_hat)
        for index in range(self.points):
            sigma, following = sigmas[places[index]], sigmas[places[index + 1]]
            timestep = (1000 * sigma).repeat(ROWS)
            of_teacher, of_clean = self.guided(self.teacher, fake, timestep), self.guided(self.teacher, real, timestep)
            of_auxiliary = self.guided(self.auxiliary, fake, timestep)
            of_point = {
                "noisy_input": fake, "noisy_hr": real, "model_pred_tea": of_teacher, "model_pred_tea_hr": of_clean,
                "model_pred_reg": of_auxiliary, "sigmas_current": sigma.repeat(ROWS).view(-1, 1, 1, 1),
                "sigmas_next": following.repeat(ROWS).view(-1, 1, 1, 1), "current_step": timestep,
            }  # fmt: skip
            found |= {f"step{index}.{name}": tensor for name, tensor in of_point.items()}
            weight = self.shares[index] * sigma**2
            vsd, tsm = vsd + weight * (of_teacher - of_auxiliary), tsm + weight * (of_teacher - of_clean)
            fake, real = fake - (sigma - following) * of_auxiliary, real - (sigma - following) * of_clean
        return vsd, tsm

    def auxiliary_step(self, z_hat: Tensor, given: dict[str, Tensor], sigmas: Tensor, found: dict[str, Tensor]) -> Tensor:
        sigma = sigmas[given["idx_lora"]].view(-1, 1, 1, 1)
        noisy = sigma * given["noise_lora"] + (1 - sigma) * z_hat
        told = self.prompts["batch_prompt_embeds"], self.prompts["batch_pool_embeds"]
        clean = noisy - sigma * self.auxiliary(noisy, *told, 1000 * sigma.flatten()).sample
        weighting = torch.sigmoid(given["u"])
        loss = (0.5 * weighting * ((clean - z_hat) ** 2).mean()).mean()
        found |= {"lora_noisy": noisy, "lora_sigma": sigma, "lora_x0_pred": clean, "lora_weighting": weighting, "lora_loss": loss[None]}
        return loss


def write_training_folder(folder: Path) -> None:
    """Three points of unequal shares with a teacher's adapter and a stretch, and one point of three samples that are noised unalike."""
    folder.mkdir()
    torch.manual_seed(5)
    manifest = json.loads(MANIFEST.read_text())["lora"]
    parts = {"transformer": "student_transformer", "vae": "student_vae", "reg": "reg"}
    lora: dict[str, Any] = {part: {"r": RANK, "alpha": ALPHA, "targets": manifest[name]["target_modules"]} for part, name in parts.items()}
    with torch.no_grad():
        transformer, vae = random_networks(TRANSFORMER, VAE)
    vae_parts = {f"vae_{part}": tensors_of(vae, f"{part}.") for part in ("encoder", "decoder")}
    for part, tensors in {"transformer": tensors_of(transformer, ""), **vae_parts}.items():
        save_file(tensors, folder / f"weights_{part}.safetensors")
    student, teacher, auxiliary = (copy.deepcopy(transformer) for _ in range(3))
    for network, part, file, name in (
        (student, "transformer", "transformer", "default"), (vae, "vae", "vae", "default"),
        (teacher, "transformer", "teacher", "default"), (auxiliary, "reg", "reg", "reg"),
    ):  # fmt: skip
        save_file(adapted(network, lora[part], name), folder / f"lora_{file}.safetensors")
    prompts = {f"{kind}prompt_embeds": torch.randn(rows, 5, 20) for kind, rows in (("", 1), ("null_", 1), ("batch_", ROWS))}
    prompts |= {f"{kind}pool_embeds": torch.randn(rows, 12) for kind, rows in (("", 1), ("null_", 1), ("batch_", ROWS))}
    save_file(prompts, folder / "prompts.safetensors")
    numbers = {"transformer": TRANSFORMER, "vae": VAE, "lora": {**lora, "teacher": "same as transformer"}}
    numbers["scheduler"] = {"num_train_timesteps": 1000, "shift": SHIFT}
    several = Loop(student, vae, teacher, auxiliary, prompts, 3, 37, 11, [1.0, 0.5, 0.2], 0.4, 3.0)
    one = Loop(student, vae, transformer, auxiliary, prompts, 1, 37, None, [0.8], 0.9, 5.0)
    for name, loop, indices in (("several", several, [400, 400, 400]), ("one", one, [140, 620, 333])):
        write_iteration(folder, name, loop, torch.tensor(indices), numbers)


def adapted(network: Any, lora: dict[str, Any], name: str) -> dict[str, Tensor]:
    """Put a drawn adapter on the network; what the release's save call would write of it."""
    network.add_adapter(LoraConfig(r=lora["r"], lora_alpha=lora["alpha"], target_modules=lora["targets"]), adapter_name=name)
    for parameter_name, parameter in network.named_parameters():
        parameter.requires_grad_("lora_" in parameter_name)
        if "lora_" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.25 / parameter[0].numel() ** 0.5)
    return {f"transformer.{key}": tensor.clone() for key, tensor in get_peft_model_state_dict(network, adapter_name=name).items()}


def write_iteration(folder: Path, name: str, loop: Loop, indices: Tensor, numbers: dict[str, Any]) -> None:
    latent = (ROWS, TRANSFORMER["in_channels"], 4, 6)
    noises = {key: torch.randn(latent) for key in ("latent_hr", "vae_noise", "noise", "noise_lora")}  # type: ignore[call-overload]
    given = {"lr": 2 * torch.rand(ROWS, 3, 32, 48) - 1, "hr": torch.rand(ROWS, 3, 32, 48), **noises, "u": torch.randn(ROWS)}
    given |= {"noised_index": indices, "idx_lora": torch.tensor([77, 512, 940])}
    config = {
        **numbers, "N": loop.points, "s": loop.stride, "step_weights": loop.shares, "lambda_tsd": loop.balance,
        "guidance_scale": loop.guidance, "use_teacher_lora": loop.bias is not None, "random_bias": loop.bias,
    }  # fmt: skip
    for released in (False, True):
        for network in (loop.student, loop.vae, loop.auxiliary):
            network.zero_grad()
        found, gradients = loop.run(given, released)
        write(folder, f"{name}_grads{'_released' if released else ''}", gradients, {}, 2e-3)
    write(folder, name, {**given, **found}, config, 2e-4)
