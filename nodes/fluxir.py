"""FluxIR: Flux restores while an adapter tells each of its blocks what the degraded picture holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.methods.fluxir import Options, restore_latent
from ..core.models.prior import Prior
from ..core.runtime import DTYPES
from ..core.weights.fluxir import adapter_choices, load_adapter
from .latents import Latent, scaled, with_samples
from .prompt import Conditioning, as_prompt
from .sockets import FLUXIR, PRIOR, InputTypes, choice, integer, number, seed, socket

if TYPE_CHECKING:
    from ..core.models.flux_adapter import FluxAdapter

CATEGORY = "image/restoration/FluxIR"


class KintsugiLoadFluxIR:
    DISPLAY_NAME = "Load FluxIR (SE-adapter)"
    DESCRIPTION = "Load the adapter that tells Flux what a degraded picture holds."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["FluxIR", "FLUX.1", "ControlNet", "adapter", "SE layers"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = (FLUXIR,), ("fluxir",), "load"
    OUTPUT_TOOLTIPS = ("The adapter, for Sample with FluxIR.",)

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {
                "weights": choice(
                    adapter_choices(),
                    "auto",
                    "auto: kintsugi/fluxir/fluxir.safetensors when it is there, else the small embedded one (the log says which).",
                )
            },
            "optional": {
                "dtype": choice(
                    ["auto", *DTYPES], "auto", "Number format of the adapter. auto: fp32 on a CPU, bf16 or fp16 on a GPU.", advanced=True
                )
            },
        }

    def load(self, weights: str, dtype: str = "auto") -> tuple[FluxAdapter]:
        return (load_adapter(weights, dtype),)


class KintsugiFluxIRSampler:
    DISPLAY_NAME = "Sample with FluxIR"
    DESCRIPTION = "Restore latents with Flux, from noise, steered in every block by what the degraded picture holds."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["FluxIR sampler", "KSampler", "FLUX.1", "restore", "super-resolution"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = ("LATENT",), ("restored",), "restore"
    OUTPUT_TOOLTIPS = ("The restored latents; decode them with the same prior.",)

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {
                "prior": socket(PRIOR, "A Flux from Load Prior."),
                "fluxir": socket(FLUXIR, "An adapter from Load FluxIR, made for this Flux."),
                "latent": socket("LATENT", "The degraded pictures at the size of the result, encoded by this prior."),
                "seed": seed(),
                "steps": integer(20, 1, 200, "Steps from noise to picture, each a call of the whole Flux. 20 is what the paper takes."),
                "guidance": number(4.0, 0.0, 30.0, "The guidance scale that Flux is told; FLUX.1-schnell does not listen.", step=0.1),
                "strength": number(1.0, 0.0, 2.0, "How strongly the adapter steers: 1 as trained, 0 is plain Flux.", step=0.05),
                "control_start": number(
                    0.0, 0.0, 1.0, "When the adapter begins to steer: 0 the run's beginning, 1 its end.", step=0.05, advanced=True
                ),
                "control_end": number(1.0, 0.0, 1.0, "When it ends to steer and Flux goes on freely.", step=0.05, advanced=True),
                "tile": integer(1024, 256, 4096, "Pixels along a side that Flux sees at once; larger pictures go in tiles.", step=64),
            },
            "optional": {"positive": socket("CONDITIONING", "What the picture shows. Not connected: an empty prompt, as in the paper.")},
        }

    def restore(
        self,
        prior: Prior,
        fluxir: FluxAdapter,
        latent: Latent,
        seed: int,
        steps: int,
        guidance: float,
        strength: float,
        control_start: float,
        control_end: float,
        tile: int,
        positive: Conditioning | None = None,
    ) -> tuple[Latent]:
        options = Options(steps, guidance, strength, control_start, control_end)
        prompt = None if positive is None else as_prompt(positive, "positive")
        restored = restore_latent(prior, fluxir, scaled(prior, latent), seed, options, tile, prompt)
        return (with_samples(latent, prior, restored),)


NODES = (KintsugiLoadFluxIR, KintsugiFluxIRSampler)
