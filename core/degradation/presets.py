"""The named degradation models, every number of them.

`real-esrgan` and `real-esrgan-seesr` have the published numbers; JPEG comes from a real encoder. `face` has those of
CodeFormer's and InstaRevive's test scripts, `mask` and `salt-and-pepper` InstaRevive's. The numbers of `apisr`, `rain`,
`low-light` and `mild` are ours; `mild` covers what the embedded restorer is measured on.
"""

from __future__ import annotations

from ..errors import BadValueError
from .overrides import overridden
from .stages import (
    AnyPlace,
    BlurStage,
    CodecChoice,
    CompressStage,
    DownscaleStage,
    FitStage,
    LowLightStage,
    MaskStage,
    NoiseStage,
    OneOf,
    Preset,
    RainStage,
    ResizeStage,
    SaltAndPepperStage,
    Sequence,
    SharpenStage,
    SincStage,
    Stage,
)
from .steps import KernelFamily

SIX_FAMILIES: dict[KernelFamily, float] = {
    "iso": 0.45,
    "aniso": 0.25,
    "generalised-iso": 0.12,
    "generalised-aniso": 0.03,
    "plateau-iso": 0.12,
    "plateau-aniso": 0.03,
}
FIRST_BLUR = BlurStage(families=SIX_FAMILIES, sigma=(0.2, 3.0))
SECOND_BLUR = BlurStage(families=SIX_FAMILIES, sigma=(0.2, 1.5), probability=0.8)
FIRST_RESIZE = ResizeStage(up=0.2, down=0.7, keep=0.1, span=(0.15, 1.5))
FIRST_NOISE = NoiseStage(sigma=(1.0, 30.0), poisson_scale=(0.05, 3.0))
SECOND_NOISE = NoiseStage(sigma=(1.0, 25.0), poisson_scale=(0.05, 2.5))

SECOND_ORDER: dict[str, Stage] = {
    "blur_1": FIRST_BLUR,
    "resize_1": FIRST_RESIZE,
    "noise_1": FIRST_NOISE,
    "compress_1": CompressStage(),
    "blur_2": SECOND_BLUR,
    "resize_2": ResizeStage(up=0.3, down=0.4, keep=0.3, span=(0.3, 1.2), relative_to="target"),
    "noise_2": SECOND_NOISE,
    "finish": AnyPlace(stages={"compress": CompressStage(), "resample": Sequence(stages={"fit": FitStage(), "sinc": SincStage()})}),
}

FACE: dict[str, Stage] = {
    "blur": BlurStage(families={"iso": 0.5, "aniso": 0.5}, sizes=(41, 41), sigma=(0.1, 10.0), sinc_probability=0.0),
    "downscale": DownscaleStage(factor=(4.0, 8.0), modes={"bilinear": 1.0}),
    "noise": NoiseStage(sigma=(0.0, 20.0), gaussian_probability=1.0, grey_probability=0.0),
    "compress": CompressStage(jpeg=CodecChoice(weight=1.0, quality=(60.0, 100.0))),
}

APISR_FIRST_CODECS = CompressStage(
    jpeg=CodecChoice(weight=0.5, quality=(20.0, 95.0)), webp=CodecChoice(weight=0.5, quality=(20.0, 95.0)), full_chroma=0.5
)
APISR_SECOND_CODECS = CompressStage(
    jpeg=CodecChoice(weight=0.4, quality=(20.0, 95.0)),
    webp=CodecChoice(weight=0.3, quality=(20.0, 95.0)),
    avif=CodecChoice(weight=0.3, quality=(20.0, 95.0)),
    full_chroma=0.5,
)
APISR: dict[str, Stage] = {
    "first": AnyPlace(stages={"resize": FIRST_RESIZE, "blur": FIRST_BLUR, "noise": FIRST_NOISE, "compress": APISR_FIRST_CODECS}),
    "second": AnyPlace(stages={"fit": FitStage(), "blur": SECOND_BLUR, "noise": SECOND_NOISE, "compress": APISR_SECOND_CODECS}),
}

RAIN: dict[str, Stage] = {
    "far": RainStage(density=(0.002, 0.01), length=(6.0, 18.0), width=(0.4, 0.7), brightness=(0.2, 0.5)),
    "near": RainStage(density=(0.0002, 0.002), length=(20.0, 60.0), width=(0.6, 1.5), brightness=(0.3, 0.8)),
}

LOW_LIGHT: dict[str, Stage] = {
    "exposure": LowLightStage(),
    "noise": NoiseStage(sigma=(1.0, 10.0), poisson_scale=(0.05, 1.0)),
}


def _gaussian(sigma: tuple[float, float], probability: float = 1.0) -> BlurStage:
    return BlurStage(families={"iso": 1.0}, sizes=(13, 13), sigma=sigma, sinc_probability=0.0, probability=probability)


def _mild_file(quality: tuple[float, float]) -> CompressStage:
    return CompressStage(jpeg=CodecChoice(weight=1.0, quality=quality), full_chroma=0.5)


def _mild_noise(sigma: tuple[float, float]) -> NoiseStage:
    return NoiseStage(sigma=sigma, gaussian_probability=1.0, grey_probability=0.0)


MILD: dict[str, Stage] = {
    "kind": OneOf(
        weights={"shrunk": 0.3, "same_size": 0.3, "photo": 0.4},
        stages={
            "shrunk": DownscaleStage(factor=(2.0, 4.5), modes={"bicubic-antialiased": 1.0}),
            "same_size": Sequence(
                stages={"blur": _gaussian((0.05, 2.0)), "noise": _mild_noise((0.0, 15.0)), "compress": _mild_file((30.0, 95.0))}
            ),
            "photo": Sequence(
                stages={
                    "blur": _gaussian((0.2, 2.0)),
                    "downscale": DownscaleStage(factor=(2.0, 4.5), modes={"bicubic-antialiased": 1.0}),
                    "noise": _mild_noise((0.0, 10.0)),
                    "compress": _mild_file((50.0, 95.0)),
                }
            ),
        },
    )
}

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name="mild",
            description="One of: shrunk; blurred, noisy JPEG; all of it. What the embedded restorer knows.",
            stages=MILD,
        ),
        Preset(
            name="real-esrgan", description="Blur, resize, noise and JPEG, twice (Real-ESRGAN).", last_resize="bicubic", stages=SECOND_ORDER
        ),
        Preset(
            name="real-esrgan-seesr",
            description="Real-ESRGAN's model on a sharpened picture (SeeSR).",
            last_resize="bicubic",
            stages={"sharpen": SharpenStage(), **SECOND_ORDER},
        ),
        Preset(
            name="face",
            description="Blur, 4 to 8 times smaller, noise, JPEG (CodeFormer, InstaRevive).",
            last_resize="bilinear",
            stages=FACE,
        ),
        Preset(
            name="apisr",
            description="For drawings: the resize at any place; JPEG, WebP or AVIF (after APISR; numbers ours).",
            last_resize="bicubic",
            stages=APISR,
        ),
        Preset(
            name="bicubic",
            description="Made smaller by an antialiased bicubic filter, nothing else.",
            stages={"fit": FitStage(modes={"bicubic-antialiased": 1.0})},
        ),
        Preset(name="salt-and-pepper", description="2 to 10 % of the pixels black or white.", stages={"dots": SaltAndPepperStage()}),
        Preset(name="rain", description="Two layers of procedural rain streaks.", stages=RAIN),
        Preset(name="low-light", description="Underexposed, with sensor noise.", stages=LOW_LIGHT),
        Preset(name="mask", description="White irregular strokes, to be painted over.", stages={"strokes": MaskStage()}),
    )
}


def find_preset(name: str, overrides: dict[str, object] | None = None) -> Preset:
    """The preset of that name, some of its numbers replaced; overrides are nested by stage name: {"blur_1": {"sigma": [0.2, 2]}}.

    Raises BadValueError for an unknown preset or key, naming the known ones, and for an impossible value.
    """
    if name not in PRESETS:
        raise BadValueError(f"There is no degradation preset {name!r}.", way_out=f"Choose one of: {', '.join(PRESETS)}.")
    return overridden(PRESETS[name], overrides or {}, where=f"preset {name}")
