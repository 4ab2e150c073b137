"""A caption for a picture, to be a restorer's prompt."""

from __future__ import annotations

from torch import Tensor

from ..core.methods.captioning import Captioner
from ..core.weights.captioners import captioner_choices, load_captioner
from .sockets import CAPTIONER, InputTypes, choice, socket

CATEGORY = "image/restoration/prompt"


class KintsugiLoadCaptioner:
    DISPLAY_NAME = "Load Captioner (BLIP)"
    DESCRIPTION = "Load the network that says in a sentence what a picture shows."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["BLIP", "caption", "image to text", "interrogate"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = (CAPTIONER,), ("captioner",), "load"
    OUTPUT_TOOLTIPS = ("The captioner, for Caption Image.",)

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        choices = captioner_choices()
        return {
            "required": {
                "weights": choice(choices, choices[0], "A BLIP folder in models/kintsugi/captioner; none comes with Kintsugi."),
            }
        }

    def load(self, weights: str) -> tuple[Captioner]:
        return (load_captioner(weights),)


class KintsugiCaption:
    DISPLAY_NAME = "Caption Image (BLIP)"
    DESCRIPTION = "Say in a sentence what each picture shows, to be given to a restorer as its prompt."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["describe", "image to text", "interrogate", "prompt from image"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = ("STRING",), ("caption",), "describe"
    OUTPUT_TOOLTIPS = ("The captions, a line for each picture of the batch.",)

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {
                "captioner": socket(CAPTIONER, "A captioner from Load Captioner."),
                "image": socket("IMAGE", "The pictures to describe; coarsely restored ones are described better than degraded ones."),
            }
        }

    def describe(self, captioner: Captioner, image: Tensor) -> tuple[str]:
        return ("\n".join(captioner.describe(image)),)


NODES = (KintsugiLoadCaptioner, KintsugiCaption)
