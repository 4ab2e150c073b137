"""What a distilled TSD-SR is exported as: the release's adapters and prompt, or one file of ours with everything merged."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from ..core.methods.tsd_sr import TsdSr
from ..core.weights.files import write_weights
from ..core.weights.tsd_sr import KIND, POSITIONS
from .adapters import Adapted
from .bases import Base
from .instarevive_parts import write_vae
from .tsd_sr_networks import Student, published_factors


def write_published(folder: Path, student: Student, method: TsdSr, auxiliary: Adapted) -> list[Path]:
    """transformer.safetensors, vae.safetensors, the prompt's two files, and the auxiliary network's adapter, which only training uses."""
    parts: dict[str, dict[str, Tensor]] = {**student.published(), "transformer_reg": published_factors(auxiliary)}
    paths = [write_adapter(folder / f"{part}.safetensors", factors) for part, factors in parts.items()]
    for stem, tensor in (("prompt_embeds", method.prompt), ("pool_embeds", method.pooled)):
        paths.append(folder / f"{stem}.safetensors")
        write_weights(paths[-1], {stem: tensor}, {}, dtype=None)
    return paths


def write_adapter(path: Path, factors: dict[str, Tensor]) -> Path:
    """As they are, with their rank."""
    rank = next(iter(factors.values())).shape[0]
    write_weights(path, factors, {"kind": KIND, "rank": rank}, dtype=None)
    return path


def write_whole(path: Path, student: Student, method: TsdSr, base: Base, border: int, own_vae: bool) -> list[Path]:
    """One file in half precision: the merged transformer with its prompt, and the merged encoder, which takes the place of the VAE's own.

    own_vae: write the prior's VAE beside it; else it is the embedded one. The table of positions is left out: it is computed.
    """
    restoring, encoding = student.step.merged(), student.encoder.merged()
    tensors = {name: tensor for name, tensor in restoring.items() if name != f"transformer.{POSITIONS}"}
    tensors |= {name: tensor for name, tensor in encoding.items() if name.startswith("vae.encoder.")}
    vae = path.with_name("vae.safetensors")
    told = {"transformer": base.config, "one_step": asdict(method.constants), "border": border, "vae": vae.name if own_vae else "embedded"}
    write_weights(path, tensors, {"kind": KIND, **told})
    if own_vae:
        write_vae(vae, base.vae)
    return [path, vae] if own_vae else [path]
