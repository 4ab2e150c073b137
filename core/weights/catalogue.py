"""What is published where: the table behind `kintsugi models list` and `fetch`. Nothing here touches the network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from ..errors import WeightsError
from .locations import PICKLE_SUFFIXES


@dataclass(frozen=True)
class ReleaseFile:
    """A file of a hub repository and the place below the models folder where it goes. A name with `*` stands for all files
    of a folder that fit, where a publisher may have split a network into any number of them."""

    path: str
    target: str

    @property
    def is_pickle(self) -> bool:
        """True when it must go through the converter before a node may load it."""
        return self.path.endswith(PICKLE_SUFFIXES)

    def among(self, paths: Iterable[str]) -> list[ReleaseFile]:
        """The files of a repository that this entry means; itself where it stands for one."""
        if "*" not in self.path:
            return [self]
        folder = PurePosixPath(self.target).parent
        return [ReleaseFile(path, str(folder / PurePosixPath(path).name)) for path in sorted(paths) if fnmatchcase(path, self.path)]

    def is_in(self, models: Path) -> bool:
        """Whether it, or one of those it stands for, lies in that models folder."""
        return any(models.glob(self.target))


@dataclass(frozen=True)
class Release:
    """One publication of weights. `repository` is None where the authors publish none on the hub; `page` tells more."""

    name: str
    what: str
    licence: str
    page: str
    repository: str | None = None
    files: tuple[ReleaseFile, ...] = ()
    gated: bool = False
    note: str = ""


def _files(folder: str, *paths: str) -> tuple[ReleaseFile, ...]:
    """Those files of a repository under their own names in a folder of the models tree, pickles as safetensors."""
    return tuple(ReleaseFile(path, f"{folder}/{_loadable_name(PurePosixPath(path))}") for path in paths)


def _tree(folder: str, *paths: str) -> tuple[ReleaseFile, ...]:
    """Those files of a repository in their own subfolders of a folder of the models tree."""
    return tuple(ReleaseFile(path, f"{folder}/{path}") for path in paths)


def _loadable_name(path: PurePosixPath) -> str:
    return path.with_suffix(".safetensors").name if path.suffix in PICKLE_SUFFIXES else path.name


_CLIP_TOKENIZER = ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json")

RELEASES: tuple[Release, ...] = (
    Release(
        name="instantir",
        what="InstantIR: DCP adapter, Aggregator and Previewer LoRA",
        licence="Apache-2.0",
        page="https://huggingface.co/InstantX/InstantIR",
        repository="InstantX/InstantIR",
        files=_files("kintsugi/instantir", "models/adapter.pt", "models/aggregator.pt", "models/previewer_lora_weights.bin"),
    ),
    Release(
        name="dinov2-large",
        what="InstantIR's image encoder",
        licence="Apache-2.0",
        page="https://huggingface.co/facebook/dinov2-large",
        repository="facebook/dinov2-large",
        files=_files("kintsugi/instantir/dinov2-large", "model.safetensors", "config.json"),
    ),
    Release(
        name="sdxl",
        what="SDXL base 1.0 with its tokenizers, InstantIR's prior",
        licence="CreativeML Open RAIL++-M",
        page="https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0",
        repository="stabilityai/stable-diffusion-xl-base-1.0",
        files=(
            *_files("checkpoints", "sd_xl_base_1.0.safetensors"),
            *_tree(
                "diffusers/stable-diffusion-xl-base-1.0",
                *(f"{part}/{name}" for part in ("tokenizer", "tokenizer_2") for name in _CLIP_TOKENIZER),
            ),
        ),
    ),
    Release(
        name="lcm-lora-sdxl",
        what="LCM-LoRA for SDXL, which lets a prompt steer InstantIR's previews",
        licence="CreativeML Open RAIL++-M",
        page="https://huggingface.co/latent-consistency/lcm-lora-sdxl",
        repository="latent-consistency/lcm-lora-sdxl",
        files=(ReleaseFile("pytorch_lora_weights.safetensors", "loras/lcm-lora-sdxl.safetensors"),),
    ),
    Release(
        name="tsd-sr",
        what="TSD-SR: student and encoder LoRA, prompt embeddings",
        licence="Apache-2.0 (code)",
        page="https://github.com/Microtreei/TSD-SR",
        note="The authors share the files through cloud drives linked on that page. Put transformer.safetensors and "
        "vae.safetensors of checkpoint/tsdsr (or tsdsr-mse) into kintsugi/tsd-sr, and convert prompt_embeds.pt and pool_embeds.pt "
        "of dataset/default into it with `kintsugi convert`.",
    ),
    Release(
        name="sd3-medium",
        what="Stable Diffusion 3 medium, TSD-SR's prior",
        licence="Stability AI Community License",
        page="https://huggingface.co/stabilityai/stable-diffusion-3-medium",
        repository="stabilityai/stable-diffusion-3-medium",
        files=_files("checkpoints", "sd3_medium.safetensors"),
        gated=True,
    ),
    Release(
        name="gendr",
        what="GenDR: one-step UNet on SD2.1-VAE16",
        licence="none stated",
        page="https://github.com/icandle/GenDR",
        note="No weights are published so far; train them with `kintsugi train`, or use the embedded ones.",
    ),
    Release(
        name="vae-kl-f8-d16",
        what="A 16-channel f8 VAE, which GenDR's authors name as a source",
        licence="MIT",
        page="https://huggingface.co/ostris/vae-kl-f8-d16",
        repository="ostris/vae-kl-f8-d16",
        files=_files("kintsugi/gendr/vae-kl-f8-d16", "diffusion_pytorch_model.safetensors", "config.json"),
    ),
    Release(
        name="instarevive",
        what="InstaRevive: one-step PixArt-alpha generator",
        licence="MIT (code)",
        page="https://github.com/EternalEvan/InstaRevive",
        note="The authors share InstaRevive_v1.ckpt through a cloud drive linked on that page. "
        "Convert it into kintsugi/instarevive with `kintsugi convert`. It needs the VAE and T5 of pixart-alpha.",
    ),
    Release(
        name="pixart-alpha",
        what="PixArt-alpha at 512 pixels with VAE and T5, InstaRevive's prior (about 22 GB)",
        licence="CreativeML Open RAIL++-M",
        page="https://huggingface.co/PixArt-alpha/PixArt-XL-2-512x512",
        repository="PixArt-alpha/PixArt-XL-2-512x512",
        files=_tree(
            "diffusers/PixArt-XL-2-512x512",
            *(f"{part}/{name}" for part in ("transformer", "vae") for name in ("config.json", "diffusion_pytorch_model.safetensors")),
            *("text_encoder/*.json", "text_encoder/*.safetensors", "tokenizer/*.json", "tokenizer/spiece.model"),
        ),
        note="Its tokenizer is read with the packages sentencepiece and protobuf.",
    ),
    Release(
        name="sd-vae-ft-ema",
        what="Stable Diffusion's ft-EMA VAE, which InstaRevive encodes with",
        licence="MIT",
        page="https://huggingface.co/stabilityai/sd-vae-ft-ema",
        repository="stabilityai/sd-vae-ft-ema",
        files=_files("vae/sd-vae-ft-ema", "config.json", "diffusion_pytorch_model.safetensors"),
    ),
    Release(
        name="swinir",
        what="SwinIR coarse restorers of DiffBIR, which InstaRevive puts first",
        licence="Apache-2.0",
        page="https://huggingface.co/lxq007/DiffBIR",
        repository="lxq007/DiffBIR",
        files=_files("kintsugi/swinir", "general_swinir_v1.ckpt", "face_swinir_v1.ckpt"),
    ),
    Release(
        name="fluxir",
        what="FluxIR: adapter for FLUX.1-dev",
        licence="none stated",
        page="https://arxiv.org/abs/2504.15159",
        note="No weights are published so far; train them with `kintsugi train`, or use the embedded ones.",
    ),
    Release(
        name="flux-dev",
        what="FLUX.1-dev with VAE, text encoders and tokenizers, FluxIR's prior (about 34 GB)",
        licence="FLUX.1 [dev] Non-Commercial License",
        page="https://huggingface.co/black-forest-labs/FLUX.1-dev",
        repository="black-forest-labs/FLUX.1-dev",
        files=(
            *_files("diffusion_models", "flux1-dev.safetensors"),
            *_files("vae", "ae.safetensors"),
            *_tree(
                "diffusers/FLUX.1-dev",
                *("text_encoder/config.json", "text_encoder/model.safetensors", "text_encoder_2/*.json", "text_encoder_2/*.safetensors"),
                *(f"tokenizer/{name}" for name in _CLIP_TOKENIZER),
                "tokenizer_2/*.json",
            ),
        ),
        gated=True,
    ),
)


def find_release(name: str) -> Release:
    """The release of that name; raises WeightsError listing the known ones."""
    for release in RELEASES:
        if release.name == name:
            return release
    known = ", ".join(release.name for release in RELEASES)
    raise WeightsError(f"no release is named {name!r}.", way_out=f"Known: {known}.")
