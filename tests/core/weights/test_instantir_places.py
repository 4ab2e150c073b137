"""Where InstantIR's parts are found: published files, embedded ones, and what the widgets offer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from kintsugi.core.errors import WeightsError
from kintsugi.core.methods.dcp_tokens import image_tokens
from kintsugi.core.models.mini import build_unet
from kintsugi.core.runtime import LocalHost
from kintsugi.core.weights import embedded
from kintsugi.core.weights.files import build_network, read_weights, write_weights
from kintsugi.core.weights.instantir import (
    PUBLISHED,
    aggregator_choices,
    load_aggregator,
    load_perceptor,
    load_previewer,
    part_file,
    perceptor_choices,
    previewer_choices,
)
from kintsugi.core.weights.instantir_layouts import Part
from published_layouts import write_single_file
from tiny_instantir import UNET, aggregator_tensors, dcp_tensors, place_of, write_dinov2

LOADERS: dict[str, Callable[[str], object]] = {"DCP": load_perceptor, "Previewer": load_previewer, "Aggregator": load_aggregator}
FIRST_OF_SDXL = "unet.down_blocks.0.resnets.0.conv1.lora_A.weight"


def write_published(host: LocalHost) -> None:
    models = host.folders.models / "kintsugi"
    write_single_file(models / PUBLISHED["DCP"], dcp_tensors())
    write_single_file(
        models / PUBLISHED["Previewer"], {FIRST_OF_SDXL: torch.zeros(64, 320), FIRST_OF_SDXL.replace("A", "B"): torch.zeros(320, 64)}
    )
    write_weights(models / PUBLISHED["Aggregator"], aggregator_tensors(), {"unet": UNET})
    write_dinov2(place_of(host, "dinov2-large"))


@pytest.mark.parametrize("part", LOADERS)
def test_auto_is_embedded_where_nothing_is_and_says_so(part: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "kintsugi"):
        LOADERS[part]("auto")
    assert f"Weights of InstantIR's {part}: the small embedded ones." in caplog.text


@pytest.mark.parametrize("part", LOADERS)
def test_auto_takes_the_published_file_and_embedded_does_not(part: Part, host: LocalHost, caplog: pytest.LogCaptureFixture) -> None:
    write_published(host)
    with caplog.at_level("INFO", "kintsugi"):
        LOADERS[part]("auto")
    assert f"Weights of InstantIR's {part}: {PUBLISHED[part]}." in caplog.text
    assert part_file(part, "embedded") == embedded.INSTANTIR[part]


@pytest.mark.parametrize(
    ("part", "pickle"),
    [("DCP", "adapter.pt"), ("Previewer", "previewer_lora_weights.bin"), ("Aggregator", "aggregator.pt")],
)
def test_a_pickle_in_its_place_is_named_with_the_way_out(part: str, pickle: str, host: LocalHost, caplog: pytest.LogCaptureFixture) -> None:
    place_of(host, pickle).touch()
    LOADERS[part]("auto")
    assert f"{pickle} is a pickle" in caplog.text and "kintsugi convert" in caplog.text


def test_each_widget_offers_the_files_of_its_part(host: LocalHost) -> None:
    write_published(host)
    write_single_file(host.folders.models / "loras" / "style" / "lcm.safetensors", {"a": torch.zeros(1)})
    assert perceptor_choices() == ["auto", "embedded", "instantir/adapter.safetensors"]
    assert aggregator_choices() == ["auto", "embedded", "instantir/aggregator.safetensors"]
    assert previewer_choices() == ["auto", "embedded", "instantir/previewer_lora_weights.safetensors", "loras/style/lcm.safetensors"]


def test_a_damaged_file_is_offered_so_that_its_fault_can_be_told(host: LocalHost) -> None:
    place_of(host, "half.safetensors").write_bytes(b"half")
    assert "instantir/half.safetensors" in perceptor_choices()
    with pytest.raises(WeightsError, match=r"half\.safetensors: cannot be read as safetensors"):
        load_perceptor("instantir/half.safetensors")


def test_a_name_outside_the_models_folder_is_refused() -> None:
    for load in LOADERS.values():
        with pytest.raises(WeightsError, match="leaves the folder"):
            load("../secret.safetensors")


# --- the embedded parts


@torch.inference_mode()
def test_the_embedded_parts_fit_each_other() -> None:
    tensors, config = read_weights(embedded.PRIORS["sdxl"], "unet.")
    unet = build_network(lambda: build_unet(config["unet"]), tensors, "prior")
    perceptor, previewer, aggregator = load_perceptor(), load_previewer(), load_aggregator()
    aggregator.require_fit(unet)
    assert previewer.factors(unet, perceptor.dcp)
    latents, timestep = torch.randn(2, 1, 16, 8, 12), torch.tensor([500])
    pooled, sizes = torch.randn(1, config["text"]["pooled"]), torch.tensor([[32.0, 48.0, 0.0, 0.0, 32.0, 48.0]])
    residuals = aggregator(*latents, timestep, pooled, sizes)
    assert len(residuals) == 9 and all(residual.isfinite().all() for residual in residuals)
    with perceptor.dcp.attached(unet):
        text = torch.randn(1, config["text"]["tokens"], config["text"]["width"])
        eps = unet(latents[0], timestep, text, added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes}).sample
    assert eps.shape == latents[0].shape and eps.isfinite().all()


@torch.inference_mode()
def test_the_embedded_encoder_sees_pictures_and_their_absence() -> None:
    perceptor, resampler = load_perceptor(), load_perceptor().dcp.image_proj
    tokens, blank = image_tokens(perceptor.encoder, torch.rand(2, 40, 60, 3))
    assert tokens.shape == (2, 257, resampler.config.embedding_dim) and blank.shape == tokens[:1].shape
    assert resampler(tokens).shape == (2, resampler.config.num_queries, resampler.config.output_dim)
    assert not torch.equal(tokens[0], tokens[1])


def test_published_and_embedded_parts_together_are_refused_with_the_way_out(host: LocalHost) -> None:
    write_published(host)
    tensors, config = read_weights(embedded.PRIORS["sdxl"], "unet.")
    unet = build_network(lambda: build_unet(config["unet"]), tensors, "prior")
    own = load_perceptor("embedded")
    with pytest.raises(WeightsError, match=r"made for a U-Net of 320 channels, the prior has [0-9, ]*.*choose embedded everywhere"):
        load_previewer("auto").factors(unet, own.dcp)
