"""SD2.1-VAE16, the base that GenDR is distilled from: Stable Diffusion 2.1's U-Net retrained on 16 latent channels, by the denoising loss
and representation alignment.

"GenDR: Lightning Generative Detail Restorator", section 3 and equation 3.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ...core.diffusion import Prediction
from ...core.folders import user_data_directory
from ...core.models.byte_text import ByteTextEncoder
from ...core.models.mini import build_unet, build_vae
from ...core.models.prompt import PromptEmbedding
from ...core.weights.bases import find_base
from ...core.weights.configs import shipped_config
from ...core.weights.families import family_of
from ...core.weights.files import build_network, write_weights
from ...core.weights.gendr import FAMILY
from ...core.weights.priors import read_vae, vae_of
from ..bases import SCHEDULES, is_dry
from ..data import Batch
from ..denoisers import denoised, drawn_prompt, predict
from ..features import features_of
from ..latents import Autoencoder, high_latent
from ..losses import denoising_loss, representation_loss
from ..prior_file import write_prior
from ..prompts import PromptCache
from ..recipe import Strict
from ..representation import BLOCK, as_tokens, projector, read_teacher, teacher_tokens
from ..widened_unet import read_source
from .base import Turns

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel

STEPS = 1000
SHOWN = (250, 500, 750)


class GendrBaseSettings(Strict):
    """start: a diffusers folder of Stable Diffusion 2.1, by name or path; null for a U-Net of the configuration `network` that knows
    nothing, with a ByteTextEncoder of the sizes `text`. vae: a weights file or folder, `embedded`, or `auto`, the published one.
    teacher: DINOv2, as read_teacher() takes it. dropped: share of captions that are left out, for guidance. name: of the exported file."""

    start: str | None = None
    network: dict[str, Any] | None = None
    text: dict[str, int] | None = None
    vae: str = "auto"
    teacher: str = "clip_vision/dinov2-base"
    projector_width: int = 2048
    dropped: float = 0.1
    name: str = "sd21-vae16"


class Represented(nn.Module):
    """The U-Net with the projector that REPA trains along with it."""

    def __init__(self, unet: nn.Module, aligned: nn.Sequential) -> None:
        super().__init__()
        self.unet, self.projector = unet, aligned

    def forward(self, z_t: Tensor, t: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
        """What the U-Net tells of z_t [B, C, h, w] at t [B] with prompt tokens [B, N, D]; projected features [B, N, D] of that call."""
        with features_of(self.unet, [BLOCK]) as found:
            said = self.unet(z_t, t, prompt, return_dict=False)[0]
        return said, self.projector(as_tokens(found[BLOCK]))


class GendrBaseStage:
    """The whole U-Net by two losses."""

    Settings: ClassVar[type[Strict]] = GendrBaseSettings
    turns: ClassVar[Turns] = {"base": ("denoising", "repa")}

    def __init__(self, settings: GendrBaseSettings) -> None:
        self.settings = settings
        self.schedule = SCHEDULES[FAMILY]()
        self.vae = Autoencoder(_vae(settings.vae))
        self.prediction: Prediction = "epsilon"
        self.prompts: PromptCache | None = None
        self.text = ByteTextEncoder(**settings.text) if settings.text else None
        self.unet = self._unet()
        self.config = {name: value for name, value in self.unet.config.items() if not name.startswith("_")}
        self.teacher: Any = read_teacher(settings.teacher)
        aligned = projector(self.config["block_out_channels"][0], settings.projector_width, self.teacher.config.hidden_size)
        self.networks: dict[str, nn.Module] = {"base": Represented(self.unet, aligned)}
        self.frozen: dict[str, nn.Module] = {"teacher": self.teacher, **({"text": self.text} if self.text else {})}

    @property
    def captioned(self) -> PromptCache | None:
        """That of the text encoders it goes on from."""
        return self.prompts

    def _unet(self) -> UNet2DConditionModel:
        start, network = self.settings.start, self.settings.network
        if start is None or is_dry():
            return build_unet(network or shipped_config(family_of(FAMILY).config))
        source = read_source(start, self.vae.codec.channels)
        self.prediction = source.prediction
        self.prompts = PromptCache(source.prompts, start, user_data_directory() / "prompts")
        return build_network(lambda: build_unet(source.unet.config), source.unet.tensors, source.unet.where).train()

    def losses(self, turn: str, model: nn.Module, batch: Batch, wanted: frozenset[str], memory: dict[str, Tensor]) -> dict[str, Tensor]:
        clean = high_latent(self.vae, batch)
        eps, t = torch.randn_like(clean), torch.randint(STEPS, (len(clean),), device=clean.device)
        z_t = self.schedule.add_noise(clean, eps, t)
        said, tokens = model(z_t, t, self._told(batch))
        found = {"denoising": denoising_loss(self.schedule.eps(z_t, said.float(), t, self.prediction), eps)}
        if "repa" in wanted:
            height, width = (side // 2 for side in clean.shape[-2:])
            found["repa"] = representation_loss(tokens.float(), teacher_tokens(self.teacher, batch.high_quality, height, width))
        return {name: loss for name, loss in found.items() if name in wanted}

    def _told(self, batch: Batch) -> Tensor:
        """Prompt tokens [B, N, D]: of the captions, some left out, or of random bytes."""
        if self.text is not None:
            return drawn_prompt(self.text, len(batch.names)).tokens
        assert self.prompts is not None
        kept = (torch.rand(len(batch.captions)) >= self.settings.dropped).tolist()
        captions = [caption if keep else "" for caption, keep in zip(batch.captions, kept, strict=True)]
        return self.prompts.batch(captions).tokens.to(batch.high_quality.device)

    def output(self, batch: Batch) -> dict[str, Tensor]:
        """What it takes for the clean picture at three noise levels."""
        clean, prompt = high_latent(self.vae, batch), PromptEmbedding(self._told(batch))

        def shown(level: int) -> Tensor:
            said = partial(predict, FAMILY, self.unet, prompt=prompt)
            return self.vae.decode(denoised(self.schedule, clean, level, said, self.prediction))

        return {**{f"denoised from {level}": shown(level) for level in SHOWN}, "high_quality": batch.high_quality}

    def export(self, folder: Path, card: str) -> list[Path]:
        """A prior's file of ours where the text encoder is ours too; else the U-Net alone, which as `checkpoints/sd21-vae16.safetensors`
        is found beside its VAE and the text encoder of Stable Diffusion 2.1."""
        text = folder / f"{self.settings.name}.md"
        weights = folder / f"{self.settings.name}.safetensors"
        if self.text is not None and self.settings.text is not None:
            told = {"text": self.settings.text, "vae": self.settings.vae}
            write_prior(weights, family_of(FAMILY), self.unet, self.config, self.text, told)
        else:
            write_weights(weights, dict(self.unet.state_dict()), {"unet": self.config, "prediction": self.prediction})
        text.write_text(card)
        return [weights, text]


def _vae(name: str) -> AutoencoderKL:
    if is_dry():
        return build_vae(shipped_config(family_of(FAMILY).vae_config))
    return vae_of(find_base(FAMILY).vae()) if name == "auto" else read_vae(name)
