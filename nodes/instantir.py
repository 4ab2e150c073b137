"""InstantIR in pieces: what sees the degraded picture, what looks ahead, what compares, and the sampler that uses all three."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..core.methods.dcp_tokens import CROPS, Crop
from ..core.methods.instantir import ADARES, SOLVERS, TRAINING_STEPS, AdaRes, Options
from ..core.methods.instantir_parts import LqContext, Perceptor, Previewer
from ..core.methods.instantir_restore import look, parse_weights, perceive, restore_latent
from ..core.models.aggregator import Aggregator
from ..core.models.offload import OFFLOADS, Offload
from ..core.models.prior import Prior
from ..core.runtime import DTYPES
from ..core.weights.instantir import (
    aggregator_choices,
    encoder_choices,
    load_aggregator,
    load_perceptor,
    load_previewer,
    perceptor_choices,
    previewer_choices,
)
from .latents import Latent, scaled, with_samples
from .prompt import Conditioning, as_prompt
from .sockets import (
    AGGREGATOR,
    DCP,
    LQ_CONTEXT,
    PREVIEWER,
    PRIOR,
    InputSpec,
    InputTypes,
    choice,
    integer,
    number,
    seed,
    socket,
    switch,
    text,
)

CATEGORY = "image/restoration/InstantIR"


def weights(choices: list[str]) -> InputSpec:
    return choice(choices, "auto", "auto: the published file when it is there, else the small embedded weights (the log says which).")


def dtype() -> InputSpec:
    return choice(["auto", *DTYPES], "auto", "Number format of the networks. auto: fp32 on a CPU, bf16 or fp16 on a GPU.", advanced=True)


def share(default: float, tooltip: str, **options: Any) -> InputSpec:
    """A moment of the run: 0 its beginning, 1 its end."""
    return number(default, 0.0, 1.0, tooltip, step=0.05, **options)


class KintsugiLoadDCP:
    DISPLAY_NAME = "Load Degradation Perceptor (InstantIR DCP)"
    DESCRIPTION = "Load what sees a degraded picture for SDXL: DINOv2 and the attentions that let the U-Net look at it."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["InstantIR", "DCP", "DINOv2", "IP adapter", "adapter.pt"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = (DCP,), ("dcp",), "load"
    OUTPUT_TOOLTIPS = ("The perceptor, for Perceive Degraded Image.",)

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {"weights": weights(perceptor_choices())},
            "optional": {
                "encoder": choice(
                    encoder_choices(), "auto", "The DINOv2 folder. auto: the one in the DCP's file, else DINOv2-large.", advanced=True
                ),
                "dtype": dtype(),
            },
        }

    def load(self, weights: str, encoder: str = "auto", dtype: str = "auto") -> tuple[Perceptor]:
        return (load_perceptor(weights, encoder, dtype),)


class KintsugiDCPEncode:
    DISPLAY_NAME = "Perceive Degraded Image (InstantIR DCP)"
    DESCRIPTION = "Let the perceptor see degraded pictures: what they show, whatever happened to them."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["InstantIR", "DCP encode", "DINOv2", "image prompt", "CLIP vision encode"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = (LQ_CONTEXT,), ("lq_context",), "perceive"
    OUTPUT_TOOLTIPS = ("What was seen, for Sample with AdaRes and Preview.",)

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {
                "dcp": socket(DCP, "A perceptor from Load Degradation Perceptor."),
                "image": socket("IMAGE", "The degraded pictures, of any size."),
            },
            "optional": {
                "crop": choice(
                    list(CROPS),
                    "published",
                    "published: the middle square, as it was trained. whole image: all of it, for long pictures.",
                    advanced=True,
                ),
                "image_weights": text(
                    "1", "How much what is seen counts: one number, or one for each level, fine to coarse, as in 0.5, 1.", advanced=True
                ),
            },
        }

    def perceive(self, dcp: Perceptor, image: Tensor, crop: Crop = "published", image_weights: str = "1") -> tuple[LqContext]:
        return (perceive(dcp, image, crop, parse_weights(image_weights)),)


class KintsugiLoadPreviewer:
    DISPLAY_NAME = "Load Previewer (InstantIR)"
    DESCRIPTION = "Load the adapter that lets SDXL look ahead to the clean picture in one step."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["InstantIR", "LCM-LoRA", "LoRA", "creative", "previewer_lora_weights.bin"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = (PREVIEWER,), ("previewer",), "load"
    OUTPUT_TOOLTIPS = ("The adapter, for Sample with AdaRes and Preview.",)

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {"weights": weights(previewer_choices())},
            "optional": {
                "merged": switch(
                    False, "Keep the adapted weights beside SDXL's own: faster previews, and the U-Net's memory twice.", advanced=True
                )
            },
        }

    def load(self, weights: str, merged: bool = False) -> tuple[Previewer]:
        return (load_previewer(weights, merged),)


class KintsugiPreview:
    DISPLAY_NAME = "Preview (one look of the Previewer)"
    DESCRIPTION = "Look ahead once: the clean latent that the Previewer sees in a noisy one."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["InstantIR", "one-step preview", "consistency model"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = ("LATENT",), ("preview",), "look"
    OUTPUT_TOOLTIPS = ("What is seen, a clean latent; decode it with the same prior.",)

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {
                "prior": socket(PRIOR, "An SDXL prior from Load Prior."),
                "previewer": socket(PREVIEWER, "An adapter from Load Previewer."),
                "lq_context": socket(LQ_CONTEXT, "What Perceive Degraded Image saw."),
                "latent": socket("LATENT", "The degraded picture, encoded by this prior."),
                "timestep": integer(
                    500, 0, TRAINING_STEPS - 1, "How noisy the latent is: 0 hardly, 999 wholly. More noise, a freer preview."
                ),
            },
            "optional": {
                "positive": socket("CONDITIONING", "What the picture shows. Not connected: an empty prompt."),
                "seed": seed("Draws the noise. Picture i of a batch uses seed + i."),
                "add_noise": switch(True, "Noise the latent up to the timestep. Off: it has its noise already.", advanced=True),
            },
        }

    def look(
        self,
        prior: Prior,
        previewer: Previewer,
        lq_context: LqContext,
        latent: Latent,
        timestep: int,
        positive: Conditioning | None = None,
        seed: int = 0,
        add_noise: bool = True,
    ) -> tuple[Latent]:
        prompt = None if positive is None else as_prompt(positive, "positive")
        seen = look(prior, previewer, lq_context, scaled(prior, latent), timestep, seed, add_noise, prompt)
        return (with_samples(latent, prior, seen),)


class KintsugiLoadAggregator:
    DISPLAY_NAME = "Load Aggregator (InstantIR)"
    DESCRIPTION = "Load the network that compares the degraded latent with a preview and steers SDXL by what it finds."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["InstantIR", "ControlNet", "aggregator.pt"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = (AGGREGATOR,), ("aggregator",), "load"
    OUTPUT_TOOLTIPS = ("The network, for Sample with AdaRes.",)

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {"weights": weights(aggregator_choices())},
            "optional": {
                "dtype": dtype(),
                "offload": choice(
                    list(OFFLOADS),
                    "none",
                    "For small GPUs: weights wait in main memory between calls, whole (model) or in groups, or are kept in 8 bits.",
                    advanced=True,
                ),
            },
        }

    def load(self, weights: str, dtype: str = "auto", offload: Offload = "none") -> tuple[Aggregator]:
        return (load_aggregator(weights, dtype, offload),)


class KintsugiAdaResSampler:
    DISPLAY_NAME = "Sample with AdaRes (InstantIR)"
    DESCRIPTION = "Restore latents with SDXL, which looks at previews of where it is going and is steered by what they lack."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["AdaRes sampler", "KSampler", "restore", "adaptive restoration", "creative restoration", "SDXL"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = ("LATENT", "LATENT"), ("restored", "previews"), "restore"
    OUTPUT_TOOLTIPS = (
        "The restored latents; decode them with the same prior.",
        "Every preview in the order of time, picture after picture; the restored latents where none was made.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {
                "prior": socket(PRIOR, "An SDXL prior from Load Prior."),
                "lq_context": socket(LQ_CONTEXT, "What Perceive Degraded Image saw: of these pictures, or of one for all."),
                "previewer": socket(PREVIEWER, "An adapter from Load Previewer."),
                "aggregator": socket(AGGREGATOR, "A network from Load Aggregator."),
                "latent": socket("LATENT", "The degraded pictures, encoded by this prior."),
                "positive": socket("CONDITIONING", "What the pictures should be like, from Encode Prompt or ComfyUI's SDXL text nodes."),
                "negative": socket("CONDITIONING", "What they should not be like; without guidance (cfg 1) it is not looked at."),
                "seed": seed(),
                "steps": integer(30, 1, TRAINING_STEPS, "More steps, finer detail and a longer wait. 30 is what the authors take."),
                "cfg": number(
                    7.0, 1.0, 30.0, "Guidance: how far prompts and picture pull. 3 to 5 against lines too rigid, 1 is off.", step=0.5
                ),
                **_ways(),
            },
            "optional": {"reference": socket("LATENT", "Compared with the degraded latent in every step instead of previews.")},
        }

    def restore(
        self,
        prior: Prior,
        lq_context: LqContext,
        previewer: Previewer,
        aggregator: Aggregator,
        latent: Latent,
        positive: Conditioning,
        negative: Conditioning,
        seed: int,
        steps: int,
        cfg: float,
        sampler: str,
        adares: AdaRes,
        start: str,
        preview_start: float,
        preview_end: float,
        preview_every: int,
        previews: str,
        control_start: float,
        creative_start: float,
        guidance_rescale: float,
        strength: float,
        tile: int,
        reference: Latent | None = None,
    ) -> tuple[Latent, Latent]:
        options = Options(
            steps, cfg, guidance_rescale, sampler, adares, start == "lq", preview_start, preview_end, preview_every,
            previews == "conditional", control_start, creative_start, strength,
        )  # fmt: skip
        prompts = as_prompt(positive, "positive"), as_prompt(negative, "negative")
        other = None if reference is None else scaled(prior, reference)
        restored = restore_latent(prior, lq_context, previewer, aggregator, scaled(prior, latent), *prompts, seed, options, tile, other)
        return with_samples(latent, prior, restored.latent), with_samples({}, prior, restored.previews)


def _ways() -> dict[str, InputSpec]:
    """How the sampler goes about it."""
    return {
        "sampler": choice(list(SOLVERS), "ddpm", "ddpm: new noise at every step, as released. ddim: none, as in the paper."),
        "adares": choice(
            list(ADARES),
            "off",
            "What preview and step disagreeing decides. paper: how much of the degraded latent is compared instead of the preview. "
            "released: how strongly the Aggregator steers.",
        ),
        "start": choice(["lq", "noise"], "lq", "What the first step sees: the degraded latent under noise, or noise alone.", advanced=True),
        "preview_start": share(0.0, "When previews begin. 0.1 to 0.4 keeps closer to the picture: until then it is its own reference."),
        "preview_end": share(1.0, "When previews end.", advanced=True),
        "preview_every": integer(1, 1, TRAINING_STEPS, "Look ahead at every k-th step alone: faster, less exact.", advanced=True),
        "previews": choice(
            ["both", "conditional"],
            "both",
            "For which halves of guidance previews are made. conditional: one for both, faster and less exact.",
            advanced=True,
        ),
        "control_start": share(0.0, "When the Aggregator begins to steer.", advanced=True),
        "creative_start": share(1.0, "When it ends to steer and SDXL goes on freely: 0.6 to 0.8 against local distortion."),
        "guidance_rescale": share(0.0, "Take back what strong guidance adds to the contrast; 1 takes all of it.", advanced=True),
        "strength": number(1.0, 0.0, 2.0, "How strongly the Aggregator steers; 0 is not at all.", step=0.05, advanced=True),
        "tile": integer(1024, 256, 4096, "Pixels along a side that go through the networks at once; larger pictures go in tiles.", step=64),
    }


NODES = (
    KintsugiLoadDCP, KintsugiDCPEncode, KintsugiLoadPreviewer, KintsugiPreview, KintsugiLoadAggregator, KintsugiAdaResSampler,
)  # fmt: skip
