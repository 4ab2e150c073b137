"""TSD-SR's weights: the published adapters on Stable Diffusion 3, merged as they are read, or one whole file of ours."""

from __future__ import annotations

from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import WeightsError
from ..methods.one_step import Generator
from ..methods.tsd_sr import OneStepConstants, TsdSr, embedding_fault
from ..models.codec import LatentCodec
from ..models.mini import build_sd3_transformer, build_vae
from ..models.offload import place
from ..models.prior import Prior
from ..models.prompt import PromptEmbedding
from ..models.sd3_positions import computed_positions
from .bases import find_base
from .configs import shipped_config
from .empty import EmptyMethod
from .families import Shapes
from .files import NetworkFile, build_network, load_strictly, read_weights
from .lora import Adapter, adapter_shapes, merge, require_fit
from .options import LoadOptions
from .priors import read_vae
from .students import Student, read_student

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

KIND = "tsd-sr"
PUBLISHED = "tsd-sr/transformer.safetensors"
# Files beside a student that are no student: its encoder's adapter, the prompts, and what only training uses.
COMPANIONS = frozenset(
    {"vae.safetensors", "prompt_embeds.safetensors", "pool_embeds.safetensors", "teacher.safetensors", "transformer_reg.safetensors"}
)
FAMILY = "sd3"
RANK = 64
PROMPT_TOKENS = 333
TRANSFORMER_TARGETS = (
    "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "proj", "linear", "proj_out",
)  # fmt: skip
# Every convolution of the encoder, and the attention in its middle.
VAE_TARGETS = (
    "encoder.conv_in",
    *(f"encoder.down_blocks.{block}.resnets.{resnet}.conv{step}" for block in range(4) for resnet in (0, 1) for step in (1, 2)),
    *(f"encoder.down_blocks.{block}.resnets.0.conv_shortcut" for block in (1, 2)),
    *(f"encoder.down_blocks.{block}.downsamplers.0.conv" for block in range(3)),
    *(f"encoder.mid_block.resnets.{resnet}.conv{step}" for resnet in (0, 1) for step in (1, 2)),
    *(f"encoder.mid_block.attentions.0.{part}" for part in ("to_q", "to_k", "to_v", "to_out.0")),
    "encoder.conv_out",
)
POSITIONS = "pos_embed.pos_embed"


def read_generator(student: Path, options: LoadOptions) -> Generator:
    """The restorer in that file: a whole one of ours, which says so in its metadata, or the published adapter.

    Beside the published transformer.safetensors lie vae.safetensors and, there or in the folder above, prompt_embeds.safetensors
    and pool_embeds.safetensors (converted from the .pt files); the prior they belong to is options.base. Raises WeightsError.
    """
    file = read_student(student, KIND)
    method, prior = (_whole if "transformer" in file.config else _published)(file, options)
    if options.fold_constants:
        method.fold()
    samples = options.posterior == "sample"
    placed = place(method, options.dtype, options.offload)
    return Generator(f"{KIND} ({student.stem})", placed, prior, file.config.get("border", 0), samples)


def empty_method(config: dict[str, Any], shapes: Shapes) -> EmptyMethod:
    """TSD-SR of a file with that metadata and those tensors, on the meta device: a whole one of ours, else the full size with
    the published adapter."""
    network = config.get("transformer") or shipped_config("sd3-transformer")
    with torch.device("meta"):
        transformer = build_sd3_transformer(network)
        tokens = torch.empty(shapes.get("prompt", (1, PROMPT_TOKENS, network["joint_attention_dim"])))
        pooled = torch.empty(1, network["pooled_projection_dim"])
        method = TsdSr(transformer, PromptEmbedding(tokens, pooled), OneStepConstants())
    adapted = {} if "transformer" in config else adapter_shapes(transformer.state_dict(), TRANSFORMER_TARGETS, config.get("rank", RANK))
    side, table = network["pos_embed_max_size"], transformer.pos_embed.pos_embed
    return EmptyMethod(method, sum(prod(shape) for shape in adapted.values()), table.numel() - side * table.shape[-1])


def _whole(student: Student, options: LoadOptions) -> tuple[TsdSr, Prior]:
    """Tensors `transformer.*`, prompt and pooled; the table of positions may be left out where it is the one that its class
    computes. The metadata names the VAE: a file beside it, or the embedded one. Tensors `vae.*` take the place of its own, such as those
    of an adapted encoder."""
    config = student.config["transformer"]
    embedding = PromptEmbedding(student.take("prompt"), student.take("pooled"))
    _require_widths(config, embedding, student.where)
    codec = LatentCodec(place(_own_vae(student), options.dtype, options.offload))
    network = {name.removeprefix("transformer."): tensor for name, tensor in student.tensors.items()}
    if POSITIONS not in network:
        network[POSITIONS] = computed_positions(config)
    return _method(NetworkFile(network, config, student.where), embedding, student.constants(OneStepConstants), options), Prior(
        FAMILY, codec
    )


def _own_vae(student: Student) -> AutoencoderKL:
    """Takes the tensors `vae.*` out of the others."""
    vae = read_vae(student.vae_place())
    adapted = {name.removeprefix("vae."): student.take(name).float() for name in list(student.tensors) if name.startswith("vae.")}
    load_strictly(vae, {**vae.state_dict(), **adapted}, student.where)
    return vae


def _published(student: Student, options: LoadOptions) -> tuple[TsdSr, Prior]:
    """Both adapters merged into the prior's networks, with the release's rule that latents are not shifted. Everything is read
    and found to fit before anything is computed."""
    encoder = student.path.with_name("vae.safetensors")
    adapters = (
        _adapter(student.path, student.tensors, student.config, TRANSFORMER_TARGETS),
        _adapter(encoder, *read_weights(encoder), VAE_TARGETS),
    )
    embedding = PromptEmbedding(_bare_tensor(student.path, "prompt_embeds"), _bare_tensor(student.path, "pool_embeds"))
    base = find_base(FAMILY, options.base)
    transformer, vae = base.denoiser(), base.vae()
    _require_widths(transformer.config, embedding, str(student.path.parent))
    for file, adapter in zip((transformer, vae), adapters, strict=True):
        require_fit(file.tensors, adapter)
    transformer, vae = (_merged(file, adapter, options) for file, adapter in zip((transformer, vae), adapters, strict=True))
    unshifted = OneStepConstants(latent_offset=vae.config["scaling_factor"] * (vae.config.get("shift_factor") or 0.0))
    network = build_network(partial(build_vae, vae.config), vae.tensors, vae.where, options.dtype)
    codec = LatentCodec(place(network, options.dtype, options.offload))
    return _method(transformer, embedding, unshifted, options), Prior(base.family, codec, prompt_encoder=base.prompt_encoder())


def _adapter(path: Path, tensors: dict[str, Tensor], config: dict[str, Any], targets: tuple[str, ...]) -> Adapter:
    return Adapter(tensors, targets, config.get("rank", RANK), str(path))


def _merged(base: NetworkFile, adapter: Adapter, options: LoadOptions) -> NetworkFile:
    return NetworkFile(merge(base.tensors, adapter, options.dtype), base.config, base.where)


def _method(file: NetworkFile, embedding: PromptEmbedding, constants: OneStepConstants, options: LoadOptions) -> TsdSr:
    transformer = build_network(partial(build_sd3_transformer, file.config), file.tensors, file.where, options.dtype)
    return TsdSr(transformer, embedding, constants)


def _require_widths(config: dict[str, Any], embedding: PromptEmbedding, where: str) -> None:
    fault = embedding_fault(config, embedding)
    if fault:
        raise WeightsError(fault, where=where, way_out="Take the prompt embedding that belongs to the student.")


def _bare_tensor(student: Path, stem: str) -> Tensor:
    """The one tensor of a converted .pt file, beside the student or, where several students share it, in the folder above."""
    beside, above = (folder / f"{stem}.safetensors" for folder in (student.parent, student.parent.parent))
    path = beside if beside.is_file() or not above.is_file() else above
    if not path.is_file():
        raise WeightsError(
            "there is no such file.",
            where=str(path),
            way_out=f"Convert the file of the release: kintsugi convert {path.with_suffix('.pt')} {path}",
        )
    tensors, _ = read_weights(path)
    if set(tensors) != {stem}:
        raise WeightsError(
            f"holds {', '.join(list(tensors)[:3]) or 'nothing'}, expected one tensor {stem}.",
            where=str(path),
            way_out=f"Convert {stem}.pt of the release.",
        )
    return tensors[stem]
