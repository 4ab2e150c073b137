"""What InstantIR's three stages share: the frozen parts they stand on, what steers a call, and what validation shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from ..core.folders import user_data_directory
from ..core.methods.dcp_tokens import Crop, shown
from ..core.methods.instantir import Options, sample
from ..core.methods.instantir_assembly import conditions_of
from ..core.methods.instantir_networks import InstantIR
from ..core.models.aggregator import Aggregator
from ..core.models.dcp import DCP, cross_attention_widths
from ..core.models.instant_unet import InstantUNet
from ..core.models.lora_switch import LoraSwitch
from ..core.models.resampler import ResamplerConfig
from ..core.runtime import LocalHost, using_host
from ..core.weights.instantir import part_file
from ..core.weights.instantir_dcp import read_dcp
from ..core.weights.instantir_encoder import load_encoder
from ..core.weights.instantir_layouts import Part
from ..core.weights.previewer import RANK, previewer_targets, read_previewer
from .adapters import Adapted
from .bases import Base, is_dry
from .data import Batch
from .denoisers import drawn_sizes
from .latents import low_latent
from .prompts import PromptCache
from .recipe import Strict
from .steered_unet import SteeredUNet, perceived

if TYPE_CHECKING:
    from transformers import Dinov2Model

FAMILY = "sdxl"
# DINOv2-large, which InstantIR's release takes.
PUBLISHED_ENCODER: dict[str, Any] = {
    "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 14, "image_size": 518,
}  # fmt: skip


class DropRates(Strict):
    """How often only the picture, only the text, or both are hidden from the networks, so that guidance has something to guide from."""

    image: float = Field(default=0.0, ge=0, le=1)
    text: float = Field(default=0.0, ge=0, le=1)
    both: float = Field(default=0.0, ge=0, le=1)

    def dropped(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Whether image and text [B] are, for a number [B] in 0..1: the intervals of image, text and both follow each other from 0."""
        image = uniform < self.image
        text = ~image & (uniform < self.image + self.text)
        both = ~image & ~text & (uniform < self.image + self.text + self.both)
        return image | both, text | both


class InstantIrSettings(Strict):
    """prior: the SDXL to stand on, as base_parts() takes it. captions: tell the networks what is said of a picture, else nothing. crop:
    what the image encoder sees of a picture. sizes: the size ids of the crop, or drawn ones of uncropped pictures, as our small priors
    know them. drop: how often what is hidden. shown_steps: of the sampling that validation shows. name: of the exported file."""

    prior: str
    captions: bool = False
    crop: Crop = "published"
    sizes: Literal["crop", "drawn"] = "crop"
    drop: DropRates = DropRates()
    shown_steps: int = Field(10, ge=1)
    name: str


class PerceptorSettings(InstantIrSettings):
    """dcp: what stage I exported, or a name that Load DCP offers; encoder: as Load DCP offers it."""

    dcp: str
    encoder: str = "auto"


class Told(NamedTuple):
    """What steers a call beside the picture: pooled [B, P], size_ids [B, 6] and text [B, L, D]."""

    pooled: Tensor
    size_ids: Tensor
    text: Tensor


class Ground:
    """The U-Net with its DCP attached and the image encoder, with what is told to them about a batch."""

    def __init__(self, settings: InstantIrSettings, base: Base, dcp: DCP, encoder: Dinov2Model) -> None:
        """Raises BadValueError when the DCP was made for another U-Net."""
        self.settings, self.base, self.encoder = settings, base, encoder
        self.unet: Any = base.denoiser
        self.steered = SteeredUNet(self.unet, dcp)
        kept = user_data_directory() / "prompts" if settings.captions else None
        self._prompts = PromptCache(base.prompts, f"{FAMILY} {settings.prior}", kept)
        self.captioned = self._prompts if settings.captions else None

    def told(self, texts: Sequence[str], size_ids: Tensor) -> Told:
        """For one text per row."""
        prompt = self._prompts.batch(texts)
        assert prompt.pooled is not None
        return Told(prompt.pooled.to(size_ids.device), size_ids, prompt.tokens.to(size_ids.device))

    def captions(self, batch: Batch) -> tuple[str, ...]:
        """One per row, empty where the settings want none."""
        return batch.captions if self.settings.captions else ("",) * len(batch.captions)

    def size_ids(self, batch: Batch) -> Tensor:
        """[B, 6], as the settings have it."""
        sizes = batch.sizes.float()
        return sizes if self.settings.sizes == "crop" else drawn_sizes(sizes.shape[0], sizes.device)

    def dropped(self, batch: Batch) -> tuple[Told, Tensor]:
        """Captions and what the encoder is shown of the degraded pictures, each hidden as often as the settings say."""
        no_image, no_text = self.settings.drop.dropped(torch.rand(len(batch.names), device=batch.sizes.device))
        texts = ["" if hidden else caption for caption, hidden in zip(self.captions(batch), no_text.tolist(), strict=True)]
        return self.told(texts, self.size_ids(batch)), self.shown(batch) * ~no_image.view(-1, 1, 1, 1)

    def shown(self, batch: Batch) -> Tensor:
        """What the encoder is given of the degraded pictures [B, 3, H, W]; zeros are no picture."""
        return shown(self.encoder, batch.degraded, self.settings.crop)

    def restored(self, batch: Batch, previewer: Adapted | None = None, aggregator: Aggregator | None = None) -> Tensor:
        """The degraded pictures sampled without guidance in few steps, [B, 3, H, W]; without an Aggregator nothing but the DCP steers."""
        degraded = low_latent(self.base.vae, batch)
        side = torch.tensor(batch.degraded.shape[-2:])
        size_ids = torch.cat([side, torch.zeros(2), side]).float().to(degraded.device).expand(len(batch.names), -1)
        told = self.told([""] * len(batch.names), size_ids)
        options = Options(self.settings.shown_steps, guidance=1.0, strength=0.0 if aggregator is None else 1.0)
        with using_host(LocalHost(device=degraded.device, micro_batch=len(batch.names))):
            networks = InstantIR(InstantUNet(self.unet, self.steered.dcp), self._switch(previewer), aggregator, self.base.schedule)
            tokens = perceived(self.encoder, self.shown(batch))
            conditions = conditions_of(networks, tokens, told.text, told.pooled, size_ids)
            *_, last = sample(networks, degraded, conditions, options, lambda: torch.randn_like(degraded))
        return self.base.vae.decode(last.z_next)

    def _switch(self, previewer: Adapted | None) -> LoraSwitch:
        networks = nn.ModuleDict({"unet": self.unet, "dcp": self.steered.dcp})
        return LoraSwitch(networks, {}, 1.0) if previewer is None else LoraSwitch(networks, previewer.factors(), previewer.scale)


def new_dcp(base: Base, config: ResamplerConfig) -> DCP:
    """A DCP that fits the base's U-Net."""
    unet: Any = base.denoiser
    return DCP(cross_attention_widths(unet), unet.time_embedding.linear_2.out_features, config)


def new_encoder(config: dict[str, Any]) -> Dinov2Model:
    """A DINOv2 with random weights. It has no token for hidden patches, which nothing here would train."""
    from transformers import Dinov2Config, Dinov2Model

    return Dinov2Model(Dinov2Config(**config, use_mask_token=False))


def ground_of(settings: PerceptorSettings, base: Base) -> Ground:
    """With a trained DCP and its encoder. Raises WeightsError and BadValueError."""
    if is_dry():
        return Ground(settings, base, new_dcp(base, ResamplerConfig()), new_encoder(PUBLISHED_ENCODER))
    file = read_dcp(part_place("DCP", settings.dcp), torch.float32)
    encoder = load_encoder(settings.encoder, file.encoder, file.dcp.image_proj.config.embedding_dim, torch.float32)
    return Ground(settings, base, file.dcp, encoder)


def part_place(part: Part, weights: str) -> Path:
    """A file that one of our recipes wrote, or a part by a name that its loader offers. Raises WeightsError."""
    path = Path(weights)
    return path if path.is_file() else part_file(part, weights)


def new_previewer(steered: SteeredUNet, rank: int) -> Adapted:
    """The published layers adapted, alpha being 1."""
    return Adapted(steered, [name for name, _ in previewer_targets(steered.unet, steered.dcp)], rank, 1 / rank)


def trained_previewer(steered: SteeredUNet, weights: str) -> Adapted:
    """weights: what stage I's distillation exported, or a name that Load Previewer offers. Raises WeightsError."""
    if is_dry():
        return new_previewer(steered, RANK)
    file = read_previewer(part_place("Previewer", weights))
    factors = file.factors(steered.unet, steered.dcp)
    rank = next(iter(factors.values())).first.shape[0]
    adapted = Adapted(steered, list(factors), rank, file.scale)
    for name, pair in adapted.factors().items():
        pair.first.data.copy_(factors[name].first)
        pair.second.data.copy_(factors[name].second)
    return adapted
