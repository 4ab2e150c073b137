"""The small graph on each node's help page: the node among its neighbours, link by link."""

from __future__ import annotations

from graph_drawing import Link

SAMPLED = (
    "LoadPrior.prior > AdaResSampler.prior", "DCPEncode.lq_context > AdaResSampler.lq_context",
    "LoadPreviewer.previewer > AdaResSampler.previewer", "LoadAggregator.aggregator > AdaResSampler.aggregator",
    "Encode.latent > AdaResSampler.latent", "EncodePrompt.positive > AdaResSampler.positive",
    "EncodePrompt.negative > AdaResSampler.negative", "AdaResSampler.restored > Decode.latent",
)  # fmt: skip

CHAINS: dict[str, tuple[str, ...]] = {
    "LoadPhoto": ("LoadPhoto.image > RestoreOneStep.image", "RestoreOneStep.restored > SavePhoto.images",
                  "LoadPhoto.photo > SavePhoto.photo", "LoadPhoto.mask > SavePhoto.mask"),
    "SavePhoto": ("LoadPhoto.image > RestoreOneStep.image", "RestoreOneStep.restored > SavePhoto.images",
                  "LoadPhoto.photo > SavePhoto.photo", "LoadPhoto.mask > SavePhoto.mask"),
    "CropRegion": ("LoadPhoto.image > CropRegion.image", "LoadPhoto.mask > CropRegion.mask",
                   "CropRegion.cropped > RestoreOneStep.image", "CropRegion.region > PasteRegion.region",
                   "RestoreOneStep.restored > PasteRegion.restored"),
    "PasteRegion": ("LoadPhoto.image > PasteRegion.image", "CropRegion.cropped > RestoreOneStep.image",
                    "CropRegion.region > PasteRegion.region", "RestoreOneStep.restored > PasteRegion.restored",
                    "PasteRegion.image > SavePhoto.images"),
    "PreRestore": ("LoadPhoto.image > PreRestore.image", "PreRestore.coarse > RestoreOneStep.image"),
    "LoadGenerator": ("LoadGenerator.generator > RestoreOneStep.generator", "LoadGenerator.prior > Encode.prior"),
    "RestoreOneStep": ("LoadPhoto.image > RestoreOneStep.image", "LoadGenerator.generator > RestoreOneStep.generator",
                       "RestoreOneStep.restored > SavePhoto.images"),
    "OneStepLatent": ("LoadGenerator.generator > OneStepLatent.generator", "Encode.latent > OneStepLatent.latent",
                      "OneStepLatent.restored > Decode.latent"),
    "Encode": ("LoadGenerator.prior > Encode.prior", "LoadPhoto.image > Encode.image", "Encode.latent > OneStepLatent.latent"),
    "Decode": ("LoadGenerator.prior > Decode.prior", "OneStepLatent.restored > Decode.latent", "Decode.image > ColorFix.image"),
    "LoadPrior": ("LoadPrior.prior > Encode.prior", "LoadPrior.prior > EncodePrompt.prior", "LoadPrior.prior > AdaResSampler.prior"),
    "LoadCaptioner": ("LoadCaptioner.captioner > Caption.captioner",),
    "Caption": ("LoadCaptioner.captioner > Caption.captioner", "PreRestore.coarse > Caption.image",
                "Caption.caption > RestoreOneStep.prompt"),
    "EncodePrompt": ("LoadPrior.prior > EncodePrompt.prior", "EncodePrompt.positive > AdaResSampler.positive",
                     "EncodePrompt.negative > AdaResSampler.negative"),
    "LoadDCP": ("LoadDCP.dcp > DCPEncode.dcp", "DCPEncode.lq_context > AdaResSampler.lq_context"),
    "DCPEncode": ("LoadDCP.dcp > DCPEncode.dcp", "LoadPhoto.image > DCPEncode.image", "DCPEncode.lq_context > AdaResSampler.lq_context"),
    "LoadPreviewer": ("LoadPreviewer.previewer > AdaResSampler.previewer", "LoadPreviewer.previewer > Preview.previewer"),
    "Preview": ("LoadPrior.prior > Preview.prior", "LoadPreviewer.previewer > Preview.previewer",
                "DCPEncode.lq_context > Preview.lq_context", "Encode.latent > Preview.latent", "Preview.preview > Decode.latent"),
    "LoadAggregator": ("LoadAggregator.aggregator > AdaResSampler.aggregator", "AdaResSampler.restored > Decode.latent"),
    "AdaResSampler": SAMPLED,
    "LoadFluxIR": ("LoadFluxIR.fluxir > FluxIRSampler.fluxir", "FluxIRSampler.restored > Decode.latent"),
    "FluxIRSampler": ("LoadPrior.prior > FluxIRSampler.prior", "LoadFluxIR.fluxir > FluxIRSampler.fluxir",
                      "Encode.latent > FluxIRSampler.latent", "FluxIRSampler.restored > Decode.latent"),
    "FluxGen": ("LoadPrior.prior > FluxGen.prior", "FluxGen.images > SelectByQuality.image"),
    "SelectByQuality": ("FluxGen.images > SelectByQuality.image", "SelectByQuality.images > Degrade.image"),
    "Degrade": ("LoadPhoto.image > Degrade.image", "Degrade.degraded > RestoreOneStep.image"),
    "DegradeBlur": ("LoadPhoto.image > DegradeBlur.image", "DegradeBlur.blurred > DegradeResize.image"),
    "DegradeResize": ("DegradeBlur.blurred > DegradeResize.image", "DegradeResize.resized > DegradeNoise.image"),
    "DegradeNoise": ("DegradeResize.resized > DegradeNoise.image", "DegradeNoise.noisy > DegradeCompress.image"),
    "DegradeCompress": ("DegradeNoise.noisy > DegradeCompress.image", "DegradeCompress.compressed > RestoreOneStep.image"),
    "ColorFix": ("Decode.image > ColorFix.image", "LoadPhoto.image > ColorFix.reference", "ColorFix.image > SavePhoto.images"),
    "MeasureQuality": ("RestoreOneStep.restored > MeasureQuality.image", "LoadPhoto.image > MeasureQuality.reference"),
    "Compare": ("LoadPhoto.image > Compare.before", "RestoreOneStep.restored > Compare.after"),
    "ContactSheet": ("Decode.image > ContactSheet.image", "ContactSheet.sheet > SavePhoto.images"),
}  # fmt: skip

GRAPHS: dict[str, tuple[Link, ...]] = {f"Kintsugi{name}": tuple(map(Link.parse, chain)) for name, chain in CHAINS.items()}
