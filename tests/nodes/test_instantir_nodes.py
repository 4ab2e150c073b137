"""InstantIR's nodes wired as in a graph, on the embedded weights; and prompts in ComfyUI's form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kintsugi.core.errors import BadValueError
from kintsugi.core.models.codec import LatentCodec
from kintsugi.core.models.prior import Prior
from kintsugi.core.models.prompt import PromptEmbedding
from kintsugi.core.weights.priors import read_vae
from kintsugi.nodes.instantir import (
    KintsugiAdaResSampler,
    KintsugiDCPEncode,
    KintsugiLoadAggregator,
    KintsugiLoadDCP,
    KintsugiLoadPreviewer,
    KintsugiPreview,
)
from kintsugi.nodes.one_step import KintsugiDecode, KintsugiEncode
from kintsugi.nodes.prior import KintsugiLoadPrior
from kintsugi.nodes.prompt import KintsugiEncodePrompt, as_conditioning, as_prompt
from kintsugi.nodes.quality import KintsugiContactSheet
from torch import Tensor
from widget_defaults import defaults

WIDGETS = (
    "seed", "steps", "cfg", "sampler", "adares", "start", "preview_start", "preview_end", "preview_every", "previews", "control_start",
    "creative_start", "guidance_rescale", "strength", "tile",
)  # fmt: skip


@pytest.fixture(scope="module")
def picture() -> Tensor:
    return torch.rand(2, 50, 70, 3, generator=torch.Generator().manual_seed(0))


def wired(picture: Tensor) -> dict[str, Any]:
    """What comes out of the nodes before the sampler, every widget as it is put down."""
    (prior,) = KintsugiLoadPrior().load(**{**defaults(KintsugiLoadPrior), "family": "sdxl"})
    (dcp,) = KintsugiLoadDCP().load("auto")
    (context,) = KintsugiDCPEncode().perceive(dcp, picture)
    (previewer,), (aggregator,) = KintsugiLoadPreviewer().load("auto"), KintsugiLoadAggregator().load("auto")
    positive, negative = KintsugiEncodePrompt().encode(prior, **defaults(KintsugiEncodePrompt))
    (latent,) = KintsugiEncode().encode(prior, picture, 512)
    return {
        "prior": prior, "lq_context": context, "previewer": previewer, "aggregator": aggregator, "latent": latent, "positive": positive,
        "negative": negative,
    }  # fmt: skip


def test_a_graph_of_the_embedded_parts_restores_the_picture_and_shows_its_previews(picture: Tensor) -> None:
    parts = wired(picture)
    restored, previews = KintsugiAdaResSampler().restore(**{**defaults(KintsugiAdaResSampler), **parts, "steps": 3})
    coded, result = (KintsugiDecode().decode(parts["prior"], latent, 512)[0] for latent in (parts["latent"], restored))
    assert result.shape == coded.shape and previews["samples"].shape[0] == 6
    assert result.isfinite().all() and previews["samples"].isfinite().all()
    (shown,) = KintsugiDecode().decode(parts["prior"], previews, 512)
    (sheet,) = KintsugiContactSheet().lay_out(shown, 3, 8)
    assert sheet.shape == (1, 2 * coded.shape[1] + 8, 3 * coded.shape[2] + 16, 3)
    again, _ = KintsugiAdaResSampler().restore(**{**defaults(KintsugiAdaResSampler), **parts, "steps": 3})
    assert torch.equal(again["samples"], restored["samples"])


def test_a_reference_and_prompts_of_other_lengths_are_taken(picture: Tensor) -> None:
    parts = wired(picture)
    tokens, told = parts["positive"][0]
    longer = [[torch.cat([tokens, tokens], dim=1), told]]
    widgets = {**defaults(KintsugiAdaResSampler), "steps": 2}
    restored, previews = KintsugiAdaResSampler().restore(**{**widgets, **parts, "positive": longer}, reference=parts["latent"])
    assert torch.equal(previews["samples"], restored["samples"])


def test_a_single_look_needs_no_prompt_and_no_aggregator(picture: Tensor) -> None:
    parts = wired(picture)
    named = {name: parts[name] for name in ("prior", "previewer", "lq_context", "latent")}
    (seen,) = KintsugiPreview().look(**named, timestep=500)
    assert seen["samples"].shape == parts["latent"]["samples"].shape
    (told,) = KintsugiPreview().look(**named, timestep=500, positive=parts["positive"], seed=1, add_noise=False)
    assert told["samples"].isfinite().all()


def test_widgets_stand_in_the_order_that_workflows_store() -> None:
    sections = KintsugiAdaResSampler.INPUT_TYPES()
    sockets = ["prior", "lq_context", "previewer", "aggregator", "latent", "positive", "negative"]
    assert list(sections["required"]) == [*sockets, *WIDGETS] and list(sections["optional"]) == ["reference"]
    for node, names in (
        (KintsugiLoadDCP, ["weights", "encoder", "dtype"]),
        (KintsugiDCPEncode, ["dcp", "image", "crop", "image_weights"]),
        (KintsugiLoadPreviewer, ["weights", "merged"]),
        (KintsugiPreview, ["prior", "previewer", "lq_context", "latent", "timestep", "positive", "seed", "add_noise"]),
        (KintsugiLoadAggregator, ["weights", "dtype", "offload"]),
        (KintsugiEncodePrompt, ["prior", "positive", "negative"]),
        (KintsugiEncode, ["prior", "image", "tile", "tiling", "posterior", "seed"]),
    ):
        types = node.INPUT_TYPES()
        assert [*types["required"], *types.get("optional", {})] == names


def test_a_posterior_is_sampled_by_the_seed_widget(picture: Tensor) -> None:
    (prior,) = KintsugiLoadPrior().load(**{**defaults(KintsugiLoadPrior), "family": "sdxl"})
    mean, same, one, other = (
        KintsugiEncode().encode(prior, picture, 512, posterior=kind, seed=seed)[0]["samples"]
        for kind, seed in (("mean", 0), ("mean", 1), ("sample", 0), ("sample", 1))
    )
    assert torch.equal(mean, same) and not torch.equal(one, mean)
    assert torch.equal(one[1:], KintsugiEncode().encode(prior, picture[1:], 512, posterior="sample", seed=1)[0]["samples"])
    assert not torch.equal(one[1:], other[1:])


# --- prompts


def entry(**told: Any) -> list[Any]:
    return [torch.ones(1, 7, 4), {"pooled_output": torch.ones(1, 3), **told}]


def test_conditioning_goes_there_and_back() -> None:
    prompt = PromptEmbedding(torch.rand(1, 7, 4), torch.rand(1, 3))
    assert as_prompt(as_conditioning(prompt), "positive") == prompt
    assert as_conditioning(PromptEmbedding(prompt.tokens)) == [[prompt.tokens, {}]]


def test_what_comfyuis_sdxl_nodes_tell_of_sizes_is_left_out() -> None:
    told = entry(width=1024, height=1024, crop_w=0, crop_h=0, target_width=1024, target_height=1024)
    assert as_prompt([told], "positive").pooled is told[1]["pooled_output"]


def test_of_several_prompts_the_first_counts_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    first = entry()
    assert as_prompt([first, entry()], "positive").tokens is first[0]
    assert "positive: the first of 2 prompts is taken, the others are left out." in caplog.text


@pytest.mark.parametrize(
    ("conditioning", "message"),
    [
        ([], "negative: it holds no prompt"),
        ([entry(area=(1, 1, 0, 0), strength=1.0)], "negative: it comes with area, strength"),
        ([entry(mask=torch.ones(1, 4, 4))], "it comes with mask"),
        ([entry(start_percent=0.0, end_percent=0.5)], "it comes with start_percent, end_percent"),
        ([entry(control=object())], "it comes with control"),
        ([[torch.ones(2, 7, 4), {}]], "it comes with 2 prompts in one"),
    ],
)
def test_prompts_for_a_part_alone_are_refused(conditioning: list[list[Any]], message: str) -> None:
    with pytest.raises(BadValueError, match=message):
        as_prompt(conditioning, "negative")


def test_a_prior_without_text_encoders_reads_no_prompt() -> None:
    prior = Prior("sdxl", LatentCodec(read_vae("embedded")))
    with pytest.raises(BadValueError, match="has no text encoders"):
        KintsugiEncodePrompt().encode(prior, "a", "b")
