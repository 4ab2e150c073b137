"""What a distilled GenDR is exported as: GenDR's own files, or one file of ours that holds its prompt."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.methods.gendr import OneStepConstants
from ..core.weights.files import write_weights
from ..core.weights.gendr import KIND, PROMPTS, VAE_FOLDER
from ..core.weights.priors import read_vae

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel


@dataclass(frozen=True)
class Student:
    """What restoring takes. prompt: [1, N, D]; border: pixels of reflection around a window."""

    unet: UNet2DConditionModel
    prompt: Tensor
    constants: OneStepConstants
    border: int
    vae: AutoencoderKL


def write_whole(student: Student, folder: Path, name: str) -> list[Path]:
    """name.safetensors with U-Net and prompt, in half precision, and the VAE where it is not the embedded one."""
    vae = _write_vae(student.vae, folder)
    tensors = {"prompt": student.prompt, **{f"unet.{key}": tensor for key, tensor in student.unet.state_dict().items()}}
    path = folder / f"{name}.safetensors"
    write_weights(path, tensors, _config(student, vae))
    return [path, *vae]


def write_published(
    student: Student, others: dict[str, Tensor], training: dict[str, dict[str, Tensor]], folder: Path, name: str
) -> list[Path]:
    """GenDR's own layout: name.safetensors in half precision, prompts.safetensors, the VAE's folder, and what only training uses.

    others: further prompts by name. training: tensors by the stem of their file, kept as they are.
    """
    vae = _write_vae(student.vae, folder)
    path = folder / f"{name}.safetensors"
    write_weights(path, dict(student.unet.state_dict()), _config(student, vae))
    write_weights(folder / PROMPTS, {"positive": student.prompt, **others}, {}, torch.float32)
    for stem, tensors in training.items():
        write_weights(folder / f"{stem}.safetensors", tensors, {}, None)
    return [path, folder / PROMPTS, *vae, *(folder / f"{stem}.safetensors" for stem in training)]


def _config(student: Student, vae: list[Path]) -> dict[str, Any]:
    unet = {name: value for name, value in student.unet.config.items() if not name.startswith("_")}
    told = {"one_step": asdict(student.constants), "border": student.border, "vae": vae[0].name if vae else "embedded"}
    return {"kind": KIND, "unet": unet, **told}


def _write_vae(vae: AutoencoderKL, folder: Path) -> list[Path]:
    """The VAE's folder; nothing where it is the embedded one, which needs no copy."""
    if _is_embedded(vae):
        return []
    vae.save_pretrained(folder / VAE_FOLDER)
    return [folder / VAE_FOLDER]


def _is_embedded(vae: AutoencoderKL) -> bool:
    own, other = vae.state_dict(), read_vae("embedded").state_dict()
    shapes = ({name: tensor.shape for name, tensor in tensors.items()} for tensors in (own, other))
    return next(shapes) == next(shapes) and all(torch.equal(tensor, other[name].to(tensor)) for name, tensor in own.items())
