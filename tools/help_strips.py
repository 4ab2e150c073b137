"""What a node does to a picture, as a row of pictures for its help page: made by the nodes themselves with the weights that ship."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kintsugi.core.runtime import current_host
from kintsugi.nodes.catalogue import NODE_CLASS_MAPPINGS
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

SAMPLE = Path(__file__).parent.parent / "docs" / "sample"
PART = (130, 20, 386, 276)  # left, top, right, bottom: the face and the collar
GAP, LABEL = 6, 22
ROW_WIDTH = 720

Panel = tuple[str, Tensor | Image.Image]


def run(node: str, **given: Any) -> Any:
    """What a node gives: its first output, or all of them where there are several. Widgets that are not given stay at their default."""
    kind: Any = NODE_CLASS_MAPPINGS[f"Kintsugi{node}"]
    sections = kind.INPUT_TYPES()
    specs = {**sections.get("required", {}), **sections.get("optional", {})}
    values = {name: options["default"] for name, (_, options) in specs.items() if "default" in options}
    result = getattr(kind(), kind.FUNCTION)(**values | given)
    outputs = result.get("result", ()) if isinstance(result, dict) else result
    return outputs[0] if len(outputs) == 1 else outputs


@cache
def clean() -> Tensor:
    """The sample's undamaged original, a part of it [1, 256, 256, 3]."""
    return read(SAMPLE / "clean.png")


@cache
def damaged() -> Tensor:
    return read(SAMPLE / "sample.jpg")


def read(path: Path) -> Tensor:
    picture = np.asarray(Image.open(path).convert("RGB").crop(PART), dtype=np.float32) / 255
    return torch.from_numpy(picture.copy())[None]


@cache
def generator(method: str = "gendr") -> Any:
    """(GENERATOR, PRIOR) of the embedded weights."""
    return run("LoadGenerator", method=method, weights="embedded")


def seen(latent: Tensor) -> Tensor:
    """The first three channels of a latent [B, C, h, w] as colours [B, h, w, 3]."""
    shown = latent[:, :3].movedim(1, 3).float()
    return ((shown - shown.mean()) / (5 * shown.std()) + 0.5).clamp(0, 1)


def load_photo() -> list[Panel]:
    folder, upright = current_host().folders.input, image(clean())
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    turned.save(folder / "turned.jpg", quality=95, exif=exif)
    return [("the pixels of the file", turned), ("loaded: the EXIF rotation applied", run("LoadPhoto", image="turned.jpg")[0])]


def save_photo() -> list[Panel]:
    """A dark picture, saved and made bright again: what the steps of 8 bits cost."""
    dark, panels = clean() / 24, []
    for depth in ("8", "16"):
        run("SavePhoto", images=dark, filename_prefix=f"dark{depth}", bit_depth=depth, format="png")
        saved = next(current_host().folders.output.glob(f"dark{depth}*"))
        saved.rename(current_host().folders.input / saved.name)
        panels.append((f"saved dark in {depth} bits, then brightened", run("LoadPhoto", image=saved.name)[0] * 24))
    return panels


def pre_restore() -> list[Panel]:
    return [("degraded", damaged()), ("pre-restored", run("PreRestore", image=damaged(), weights="embedded"))]


def load_generator() -> list[Panel]:
    methods = ("tsd-sr", "gendr", "instarevive")
    rows = [(method, run("RestoreOneStep", generator=generator(method)[0], image=damaged())) for method in methods]
    return [("degraded", damaged()), *rows]


def restore_image() -> list[Panel]:
    return [("degraded", damaged()), ("restored", restored()), ("original", clean())]


@cache
def restored() -> Tensor:
    return run("RestoreOneStep", generator=generator()[0], image=damaged())


def restore_latent() -> list[Panel]:
    model, prior = generator()
    latent = run("Encode", prior=prior, image=damaged())
    after = run("OneStepLatent", generator=model, latent=latent)
    return [("latent", seen(latent["samples"])), ("restored latent", seen(after["samples"])),
            ("decoded", run("Decode", prior=prior, latent=after))]  # fmt: skip


def encode() -> list[Panel]:
    return [("image", clean()), ("three channels of its latent", seen(encoded()["samples"]))]


def decode() -> list[Panel]:
    return [("three channels of a latent", seen(encoded()["samples"])), ("decoded", run("Decode", prior=generator()[1], latent=encoded()))]


@cache
def encoded() -> Any:
    return run("Encode", prior=generator()[1], image=clean())


def load_prior() -> list[Panel]:
    prior = run("LoadPrior", family="sd3", weights="embedded")
    latent = run("Encode", prior=prior, image=clean())
    return [("image", clean()), ("encoded", seen(latent["samples"])), ("decoded again", run("Decode", prior=prior, latent=latent))]


def select() -> list[Panel]:
    """Five pictures, ever more blurred, and those that stay."""
    batch = torch.cat([clean(), *(run("DegradeBlur", image=clean(), sigma=sigma, size=41) for sigma in (0.7, 1.5, 3.0, 6.0))])
    kept, _ = run("SelectByQuality", image=batch, metrics="sharpness", keep=50.0)
    stays = [any(torch.equal(picture, other) for other in kept) for picture in batch]
    return [("kept" if keep else "dropped", picture[None] * (1 if keep else 0.35)) for keep, picture in zip(stays, batch, strict=True)]


def degrade() -> list[Panel]:
    presets = {"real-esrgan": 1, "rain": 1, "low-light": 1, "bicubic": 4}
    rows = [(preset, run("Degrade", image=clean(), preset=preset, scale=scale, seed=3)[0]) for preset, scale in presets.items()]
    return [("clean", clean()), *rows]


def blur() -> list[Panel]:
    ways: dict[str, dict[str, Any]] = {
        "iso": {"sigma": 3.0}, "aniso": {"sigma": 6.0, "sigma_y": 0.6, "rotation": 35.0}, "sinc": {"cutoff": 0.7, "size": 31},
    }  # fmt: skip
    return [("clean", clean()), *((kernel, run("DegradeBlur", image=clean(), kernel=kernel, **more)) for kernel, more in ways.items())]


def resize() -> list[Panel]:
    modes = ("bilinear", "bicubic-antialiased", "area")
    rows = [(mode, run("DegradeResize", image=clean(), mode=mode, factor=0.25)) for mode in modes]
    return [("clean", clean()), *rows]


def noise() -> list[Panel]:
    ways: dict[str, dict[str, Any]] = {
        "gaussian": {"sigma": 30.0}, "poisson": {"poisson_scale": 4.0}, "salt-and-pepper": {"amount": 0.08},
    }  # fmt: skip
    return [("clean", clean()), *((kind, run("DegradeNoise", image=clean(), noise=kind, **more)) for kind, more in ways.items())]


def compress() -> list[Panel]:
    rows = [(f"{codec}, quality 8", run("DegradeCompress", image=clean(), codec=codec, quality=8)) for codec in ("jpeg", "webp", "avif")]
    return [("clean", clean()), *rows]


def fix_colors() -> list[Panel]:
    tinted = (clean() * torch.tensor([1.1, 0.9, 0.7]) + torch.tensor([0.05, 0.0, 0.0])).clamp(0, 1)
    return [("tinted", tinted), ("reference", damaged()), ("fixed by wavelet", run("ColorFix", image=tinted, reference=damaged()))]


def measure() -> list[Panel]:
    def told(picture: Tensor) -> str:
        report, _ = run("MeasureQuality", image=picture, reference=clean(), metrics="psnr,ssim")
        return str(report)

    pictures = (run("DegradeNoise", image=clean(), sigma=12.0), run("DegradeBlur", image=clean(), sigma=2.0), damaged())
    return [("reference", clean()), *((told(picture), picture) for picture in pictures)]


def compare() -> list[Panel]:
    """The slider in the middle."""
    joined = image(damaged())
    half = joined.width // 2
    joined.paste(image(restored()).crop((half, 0, joined.width, joined.height)), (half, 0))
    ImageDraw.Draw(joined).line((half, 0, half, joined.height), fill="white", width=2)
    return [("before", damaged()), ("the slider, in the middle", joined), ("after", restored())]


def contact_sheet() -> list[Panel]:
    batch = torch.cat([run("DegradeBlur", image=clean(), sigma=sigma, size=41) for sigma in (8.0, 5.0, 3.0, 2.0, 1.0, 0.3)])
    return [("a batch of six on one sheet", run("ContactSheet", image=batch, columns=3))]


def painted() -> Tensor:
    """A mask over the face [1, 256, 256]."""
    y, x = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    return ((((x - 92) / 44) ** 2 + ((y - 96) / 58) ** 2) < 1).float()[None]


def crop_region() -> list[Panel]:
    shown = damaged() * (1 - 0.5 * painted()[..., None]) + 0.5 * painted()[..., None]
    cropped, _ = run("CropRegion", image=damaged(), mask=painted())
    return [("painted mask", shown), ("crop", cropped)]


def paste_region() -> list[Panel]:
    cropped, region = run("CropRegion", image=damaged(), mask=painted())
    better = run("RestoreOneStep", generator=generator()[0], image=cropped)
    return [
        ("image", damaged()),
        ("restored crop", better),
        ("pasted", run("PasteRegion", image=damaged(), restored=better, region=region)),
    ]


@cache
def instantir() -> dict[str, Any]:
    """What every node of InstantIR takes here."""
    prior = run("LoadPrior", family="sdxl", weights="embedded")
    positive, negative = run("EncodePrompt", prior=prior)
    return {
        "prior": prior, "previewer": run("LoadPreviewer", weights="embedded"), "positive": positive, "negative": negative,
        "latent": run("Encode", prior=prior, image=damaged()),
    }  # fmt: skip


@cache
def perceived(image_weights: str = "1") -> Any:
    return run("DCPEncode", dcp=run("LoadDCP", weights="embedded"), image=damaged(), image_weights=image_weights)


@cache
def sampled(image_weights: str = "1", strength: float = 1.0) -> tuple[Tensor, Tensor]:
    """Restored, and all previews."""
    parts, aggregator = instantir(), run("LoadAggregator", weights="embedded")
    latents = run("AdaResSampler", **parts, lq_context=perceived(image_weights), aggregator=aggregator, strength=strength)
    restored, previews = (run("Decode", prior=parts["prior"], latent=latent) for latent in latents)
    return run("ColorFix", image=restored, reference=damaged(), method="adain"), previews


def sample_with_adares() -> list[Panel]:
    restored, previews = sampled()
    half = len(previews) // 2
    looks = [("its first preview", previews[:1]), ("one half way", previews[half : half + 1])]
    return [("degraded", damaged()), *looks, ("restored", restored)]


def preview() -> list[Panel]:
    parts = {name: part for name, part in instantir().items() if name in ("prior", "previewer", "latent", "positive")}
    looks = {step: run("Preview", **parts, lq_context=perceived(), timestep=step) for step in (200, 500, 900)}
    decoded = {step: run("Decode", prior=parts["prior"], latent=latent) for step, latent in looks.items()}
    return [("degraded", damaged()), *((f"seen from timestep {step}", picture) for step, picture in decoded.items())]


def perceive() -> list[Panel]:
    return [("degraded", damaged()), ("sampled without it: weight 0", sampled("0")[0]), ("with it: weight 1", sampled()[0])]


def aggregate() -> list[Panel]:
    return [("degraded", damaged()), ("without it: strength 0", sampled(strength=0.0)[0]), ("with it: strength 1", sampled()[0])]


@cache
def flux() -> Any:
    return run("LoadPrior", family="flux", weights="embedded")


@cache
def steered(strength: float) -> Tensor:
    adapter, latent = run("LoadFluxIR", weights="embedded"), run("Encode", prior=flux(), image=damaged())
    restored = run("FluxIRSampler", prior=flux(), fluxir=adapter, latent=latent, strength=strength)
    return run("ColorFix", image=run("Decode", prior=flux(), latent=restored), reference=damaged())


def sample_with_fluxir() -> list[Panel]:
    return [("degraded", damaged()), ("restored", steered(1.0)), ("original", clean())]


def load_fluxir() -> list[Panel]:
    return [("degraded", damaged()), ("Flux alone: strength 0", steered(0.0)), ("steered: strength 1", steered(1.0))]


def draw_pictures() -> list[Panel]:
    drawn = run("FluxGen", prior=flux(), width=192, height=144, count=3)
    return [(f"seed {seed}", picture[None]) for seed, picture in enumerate(drawn)]


STRIPS: dict[str, Callable[[], Sequence[Panel]]] = {
    "KintsugiLoadPhoto": load_photo, "KintsugiSavePhoto": save_photo, "KintsugiPreRestore": pre_restore,
    "KintsugiLoadGenerator": load_generator, "KintsugiRestoreOneStep": restore_image, "KintsugiOneStepLatent": restore_latent,
    "KintsugiEncode": encode, "KintsugiDecode": decode, "KintsugiLoadPrior": load_prior, "KintsugiSelectByQuality": select,
    "KintsugiDegrade": degrade, "KintsugiDegradeBlur": blur, "KintsugiDegradeResize": resize, "KintsugiDegradeNoise": noise,
    "KintsugiDegradeCompress": compress, "KintsugiColorFix": fix_colors, "KintsugiMeasureQuality": measure,
    "KintsugiCompare": compare, "KintsugiContactSheet": contact_sheet, "KintsugiCropRegion": crop_region,
    "KintsugiPasteRegion": paste_region, "KintsugiAdaResSampler": sample_with_adares, "KintsugiPreview": preview,
    "KintsugiDCPEncode": perceive, "KintsugiLoadAggregator": aggregate, "KintsugiFluxIRSampler": sample_with_fluxir,
    "KintsugiLoadFluxIR": load_fluxir, "KintsugiFluxGen": draw_pictures,
}  # fmt: skip


def image(picture: Tensor | Image.Image) -> Image.Image:
    """Of an IMAGE its first picture."""
    if isinstance(picture, Image.Image):
        return picture.copy()
    return Image.fromarray((picture[0].clamp(0, 1) * 255).round().to(torch.uint8).numpy())


def row(panels: Sequence[Panel]) -> Image.Image:
    """The panels side by side at one height, their words below."""
    height = min(256.0, (ROW_WIDTH + GAP) / sum(image(shown).width / image(shown).height for _, shown in panels) - GAP)
    pictures = [fitted(image(shown), round(height)) for _, shown in panels]
    joined = Image.new("RGB", (sum(picture.width + GAP for picture in pictures) - GAP, round(height) + LABEL), "#202020")
    draw, left = ImageDraw.Draw(joined), 0
    for picture, (label, _) in zip(pictures, panels, strict=True):
        joined.paste(picture, (left, 0))
        draw.text((left + picture.width / 2, height + LABEL / 2), label, fill="#e4e4e4", font=font_for(label, picture.width), anchor="mm")
        left += picture.width + GAP
    return joined


def fitted(picture: Image.Image, height: int) -> Image.Image:
    """At that height; a small one is enlarged with its pixels to be seen."""
    width = round(picture.width * height / picture.height)
    return picture.resize((width, height), Image.Resampling.NEAREST if picture.height * 2 <= height else Image.Resampling.LANCZOS)


def font_for(label: str, room: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The largest letters, up to 14 pixels, with which the label fits."""
    fonts = (ImageFont.load_default(size) for size in range(14, 8, -1))
    return next((font for font in fonts if font.getlength(label) <= room), ImageFont.load_default(8))
