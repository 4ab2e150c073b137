"""FluxIR's nodes wired as in a graph, on the embedded weights; and which adapters are offered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from kintsugi.core.errors import BadValueError
from kintsugi.core.runtime import LocalHost
from kintsugi.core.weights import embedded
from kintsugi.core.weights.fluxir import adapter_choices, read_adapter
from kintsugi.nodes.fluxir import KintsugiFluxIRSampler, KintsugiLoadFluxIR
from kintsugi.nodes.one_step import KintsugiDecode, KintsugiEncode
from kintsugi.nodes.prior import KintsugiLoadPrior
from kintsugi.nodes.prompt import KintsugiEncodePrompt
from torch import Tensor
from widget_defaults import defaults

WIDGETS = ("seed", "steps", "guidance", "strength", "control_start", "control_end", "tile")


@pytest.fixture(scope="module")
def picture() -> Tensor:
    return torch.rand(2, 50, 70, 3, generator=torch.Generator().manual_seed(0))


def wired(picture: Tensor) -> dict[str, Any]:
    """What comes out of the nodes before the sampler, every widget as it is put down."""
    (prior,) = KintsugiLoadPrior().load(**{**defaults(KintsugiLoadPrior), "family": "flux"})
    (adapter,) = KintsugiLoadFluxIR().load("auto")
    (latent,) = KintsugiEncode().encode(prior, picture, 512)
    return {"prior": prior, "fluxir": adapter, "latent": latent}


def test_a_graph_of_the_embedded_parts_restores_the_picture(picture: Tensor) -> None:
    parts = wired(picture)
    widgets = {**defaults(KintsugiFluxIRSampler), "steps": 4}
    restored, again = (KintsugiFluxIRSampler().restore(**{**widgets, **parts})[0]["samples"] for _ in range(2))
    assert torch.equal(restored, again)
    coded, result = (KintsugiDecode().decode(parts["prior"], latent, 512)[0] for latent in (parts["latent"], {"samples": restored}))
    assert result.shape == coded.shape and result.isfinite().all() and result.std() > 0
    positive, _ = KintsugiEncodePrompt().encode(parts["prior"], "a red fox", "")
    (led,) = KintsugiFluxIRSampler().restore(**{**widgets, **parts, "positive": positive})
    assert led["samples"].shape == restored.shape and led["samples"].isfinite().all()


def test_sockets_and_widgets_stand_in_the_order_that_saved_workflows_count_on() -> None:
    assert tuple(KintsugiFluxIRSampler.INPUT_TYPES()["required"]) == ("prior", "fluxir", "latent", *WIDGETS)
    assert tuple(KintsugiFluxIRSampler.INPUT_TYPES()["optional"]) == ("positive",)
    assert list(KintsugiLoadFluxIR.INPUT_TYPES()["required"]) == ["weights"]


def test_a_prior_of_another_family_is_refused(picture: Tensor) -> None:
    parts = wired(picture)
    (other,) = KintsugiLoadPrior().load(**{**defaults(KintsugiLoadPrior), "family": "sdxl"})
    with pytest.raises(BadValueError, match=r"has no Flux transformer.*Load a prior of the family flux"):
        KintsugiFluxIRSampler().restore(**{**defaults(KintsugiFluxIRSampler), **parts, "prior": other})


def test_files_and_folders_of_adapters_are_offered_and_read(host: LocalHost) -> None:
    place: Path = host.folders.models / "kintsugi" / "fluxir"
    adapter = read_adapter(embedded.FLUXIR)
    place.mkdir(parents=True)
    (place / "mine.safetensors").write_bytes(embedded.FLUXIR.read_bytes())
    adapter.save_pretrained(place / "folder")
    assert adapter_choices() == ["auto", "embedded", "fluxir/folder", "fluxir/mine.safetensors"]
    for name in adapter_choices():
        (loaded,) = KintsugiLoadFluxIR().load(name)
        assert all(torch.equal(loaded.state_dict()[key], value) for key, value in adapter.state_dict().items())
