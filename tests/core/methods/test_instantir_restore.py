"""InstantIR as a person calls it: what a batch, a size, a prompt, a tile and a cancel mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import pytest
import torch
from kintsugi.core.errors import BadValueError, Interrupted, KintsugiError, OutOfMemoryError
from kintsugi.core.methods import instantir_pictures
from kintsugi.core.methods.instantir import ADARES, SOLVERS, AdaRes, Options, leading_timesteps
from kintsugi.core.methods.instantir_assembly import assembled
from kintsugi.core.methods.instantir_parts import LqContext, Previewer
from kintsugi.core.methods.instantir_pictures import prompt_rows
from kintsugi.core.methods.instantir_restore import SHOWN_SIDE, look, parse_weights, perceive, small_picture
from kintsugi.core.models.prompt import PromptEmbedding
from kintsugi.core.runtime import LocalHost, MakesPicture, Progress, using_host
from small_instantir import UNET, Parts, drawn, seen_by, small_parts
from torch import Tensor, nn

CPU = torch.device("cpu")
SHORT = Options(steps=2, guidance=3.0)


@pytest.fixture(scope="module")
def parts() -> Parts:
    return small_parts()


def worst(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


# --- batches and seeds


def test_two_runs_with_one_seed_are_identical_and_another_seed_is_another_picture(parts: Parts) -> None:
    first, second, other = (parts.restore(parts.latent, SHORT, seed) for seed in (4, 4, 5))
    assert torch.equal(first.latent, second.latent) and torch.equal(first.previews, second.previews)
    assert not torch.equal(first.latent[0], other.latent[0])


@pytest.mark.parametrize("adares", ADARES)
@pytest.mark.parametrize("tile", [1024, 32])
def test_every_picture_of_a_batch_is_as_if_restored_alone(parts: Parts, adares: AdaRes, tile: int) -> None:
    options = replace(SHORT, adares=adares, steps=3)
    together = parts.restore(parts.latent, options, seed=7, tile=tile)
    alone = [parts.restore(parts.latent[k : k + 1], options, 7 + k, seen_by(parts, k), tile=tile) for k in range(2)]
    assert torch.equal(together.latent, torch.cat([part.latent for part in alone]))
    assert torch.equal(together.previews, torch.cat([part.previews for part in alone]))


def test_that_holds_for_other_micro_batches_too(parts: Parts) -> None:
    with using_host(LocalHost(device=CPU, micro_batch=4)):
        together = parts.restore(parts.latent, SHORT, seed=7)
        assert torch.equal(together.latent[1:], parts.restore(parts.latent[1:], SHORT, 8, seen_by(parts, 1)).latent)


@pytest.mark.parametrize(("guidance", "conditional", "expected"), [(3.0, False, {2}), (3.0, True, {1, 2}), (1.0, False, {1})])
def test_no_call_is_filled_up_with_copies(parts: Parts, guidance: float, conditional: bool, expected: set[int]) -> None:
    rows: set[int] = set()
    hook = parts.unet.register_forward_pre_hook(lambda _, inputs: rows.add(inputs[0].shape[0]))
    with using_host(LocalHost(device=CPU, micro_batch=4)):
        parts.restore(parts.latent, Options(steps=2, guidance=guidance, conditional_previews=conditional))
    hook.remove()
    assert rows == expected


def test_the_context_of_one_picture_serves_all(parts: Parts) -> None:
    one = seen_by(parts, 0)
    both = LqContext(parts.perceptor, one.tokens.expand(2, -1, -1), one.blank)
    assert torch.equal(parts.restore(parts.latent, SHORT, context=one).latent, parts.restore(parts.latent, SHORT, context=both).latent)
    three = LqContext(parts.perceptor, one.tokens.expand(3, -1, -1), one.blank)
    with pytest.raises(BadValueError, match="lq_context: it is of 3 pictures, the latent of 2"):
        parts.restore(parts.latent, SHORT, context=three)


def test_results_may_be_written_to(parts: Parts) -> None:
    restored = parts.restore(parts.latent[:1], replace(SHORT, steps=1), context=seen_by(parts, 0))
    for tensor in (restored.latent, restored.previews, parts.context.tokens):
        tensor.mul_(1)


# --- sizes


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (13, 10), (16, 8)])
def test_latents_of_any_size_come_back_as_large(parts: Parts, size: tuple[int, int]) -> None:
    latent = torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(0))
    restored = parts.restore(latent, SHORT, context=seen_by(parts, 0))
    assert restored.latent.shape == latent.shape and restored.previews.shape == (2, *latent.shape[1:])
    assert restored.latent.isfinite().all()


def test_the_networks_are_told_the_size_of_the_picture_in_pixels(parts: Parts) -> None:
    told: list[Tensor] = []
    hook = parts.unet.register_forward_pre_hook(lambda _, __, named: told.append(named["added_cond_kwargs"]["time_ids"]), with_kwargs=True)
    parts.restore(parts.latent[:1], replace(SHORT, steps=1), context=seen_by(parts, 0), tile=32)
    hook.remove()
    assert {tuple(ids.flatten().tolist()) for ids in told} == {(40.0, 52.0, 0.0, 0.0, 40.0, 52.0)}


# --- every way to sample


COMBINATIONS = list(product(SOLVERS, ADARES, (True, False), (True, False), (1.0, 3.0)))


@pytest.mark.parametrize(("sampler", "adares", "degraded", "conditional", "guidance"), COMBINATIONS)
def test_every_combination_runs(parts: Parts, sampler: str, adares: AdaRes, degraded: bool, conditional: bool, guidance: float) -> None:
    options = Options(3, guidance, 0.5, sampler, adares, start_from_degraded=degraded, conditional_previews=conditional)
    restored = parts.restore(parts.latent[:1], options, context=seen_by(parts, 0))
    assert restored.latent.isfinite().all() and restored.previews.shape[0] == 3


@pytest.mark.parametrize(
    ("change", "count"),
    [
        ({}, 4),
        ({"preview_every": 2}, 2),
        ({"preview_start": 0.5}, 2),
        ({"creative_start": 0.25}, 1),
        ({"preview_start": 0.5, "preview_end": 0.5}, 0),
        ({"control_start": 0.5, "creative_start": 0.5}, 0),
        ({"strength": 0.0}, 0),
        ({"strength": 0.05}, 4),
    ],
)
def test_there_is_a_preview_for_every_look_and_else_the_result(parts: Parts, change: dict[str, Any], count: int) -> None:
    restored = parts.restore(parts.latent, Options(steps=4, guidance=3.0, **change))
    assert restored.previews.shape[0] == (2 * count or 2)
    if count == 0:
        assert torch.equal(restored.previews, restored.latent)


def test_previews_lead_towards_the_result_picture_after_picture(parts: Parts) -> None:
    restored = parts.restore(parts.latent, replace(SHORT, steps=3), seed=2)
    second = parts.restore(parts.latent[1:], replace(SHORT, steps=3), 3, seen_by(parts, 1))
    assert torch.equal(restored.previews[3:], second.previews)
    assert worst(restored.previews[2], restored.latent[0]) < worst(restored.previews[0], restored.latent[0])


def test_an_empty_control_window_is_no_control_at_all(parts: Parts) -> None:
    without = parts.restore(parts.latent, replace(SHORT, strength=0.0)).latent
    for moment in (0.0, 0.5, 1.0):
        assert torch.equal(parts.restore(parts.latent, replace(SHORT, control_start=moment, creative_start=moment)).latent, without)
    assert not torch.equal(parts.restore(parts.latent, replace(SHORT, strength=0.01)).latent, without)


def test_a_reference_takes_the_place_of_every_preview(parts: Parts) -> None:
    closed = parts.restore(parts.latent, replace(SHORT, preview_end=0.0))
    own = parts.restore(parts.latent, SHORT, reference=parts.latent)
    other = parts.restore(parts.latent, SHORT, reference=-parts.latent[:1])
    assert torch.equal(own.latent, closed.latent) and torch.equal(own.previews, own.latent)
    assert not torch.equal(other.latent, own.latent)
    adapted = parts.restore(parts.latent, replace(SHORT, adares="released"), reference=-parts.latent)
    assert adapted.previews.shape[0] == 4


def test_a_previewer_that_reads_prompts_is_steered_by_them(parts: Parts) -> None:
    """The creative mode: an adapter like the LCM-LoRA, and control that ends early."""
    layers = {f"unet.{name}": layer for name, layer in parts.unet.named_modules() if name.endswith(("attn2.to_k", "attn2.to_v"))}
    factors = {name: drawn(layer) for name, layer in layers.items()}
    creative = replace(parts, previewer=Previewer("lcm", lambda *_: factors, 1.0))
    one, other = (
        look(parts.prior, creative.previewer, parts.context, parts.latent, 500, positive=parts.prior.encode_prompt(text))
        for text in ("a red fox", "a grey wall")
    )
    assert worst(one, other) > 1e-3
    assert creative.restore(parts.latent, replace(SHORT, creative_start=0.5)).previews.shape[0] == 2


# --- prompts


def test_a_sequence_repeated_whole_changes_nothing_in_attention(parts: Parts) -> None:
    prompt, latent = parts.prior.encode_prompt("sharp"), parts.latent[:1, :, :8, :8]
    assert prompt.pooled is not None
    added = {"text_embeds": prompt.pooled, "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]])}
    with torch.inference_mode():
        once, thrice = (parts.unet(latent, 500, prompt.tokens.repeat(1, times, 1), added_cond_kwargs=added).sample for times in (1, 3))
    assert worst(thrice, once) < 1e-5


def test_prompts_of_different_lengths_meet_in_a_common_multiple(parts: Parts) -> None:
    short, long = parts.prior.encode_prompt("sharp"), parts.prior.encode_prompt("blurred")
    longer = PromptEmbedding(torch.cat([long.tokens, short.tokens], dim=1), long.pooled)
    with assembled(parts.prior, parts.context, parts.previewer, None) as networks:
        tokens, pooled = prompt_rows(networks, [longer, short])
    assert torch.equal(tokens, torch.cat([longer.tokens, short.tokens.repeat(1, 2, 1)])) and pooled.shape[0] == 2


def test_prompts_of_another_model_are_refused(parts: Parts) -> None:
    good = parts.prior.encode_prompt("sharp")
    assert good.pooled is not None
    for bad, message in (
        (PromptEmbedding(good.tokens), "prompt: it has no pooled output, which SDXL reads beside the tokens"),
        (PromptEmbedding(torch.zeros(1, 7, 5), good.pooled), "wide, the prior reads"),
        (PromptEmbedding(good.tokens, torch.zeros(1, 5)), "wide, the prior reads"),
        (PromptEmbedding(good.tokens * float("nan"), good.pooled), "The prompt has 84 values that are not finite"),
    ):
        with pytest.raises(KintsugiError, match=message):
            look(parts.prior, parts.previewer, parts.context, parts.latent, 500, positive=bad)


# --- single looks


def test_one_look_is_the_first_preview_of_a_run(parts: Parts) -> None:
    positive = parts.prior.encode_prompt("sharp")
    run = parts.restore(parts.latent, Options(steps=2, guidance=1.0), seed=3)
    timestep = leading_timesteps(2)[0]
    seen = look(parts.prior, parts.previewer, parts.context, parts.latent, timestep, 3, positive=positive)
    assert torch.equal(seen, run.previews[::2])
    plain = look(parts.prior, parts.previewer, parts.context, parts.latent, timestep, 3, add_noise=False)
    assert plain.shape == parts.latent.shape and not torch.equal(plain, seen)


@pytest.mark.parametrize("timestep", [-1, 1000])
def test_a_look_from_beyond_the_schedule_is_refused(parts: Parts, timestep: int) -> None:
    with pytest.raises(BadValueError, match=f"timestep: it is {timestep}. Choose 0 to 999"):
        look(parts.prior, parts.previewer, parts.context, parts.latent, timestep)


# --- tiles and memory


def test_tiles_have_no_seams_and_repeat_nothing(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options(steps=3, guidance=1.0, start_from_degraded=False)
    flat, one = torch.zeros(1, 4, 32, 48), seen_by(parts, 0)
    whole, tiled = (parts.restore(flat, options, 1, one, tile=tile).latent for tile in (1024, 64))
    monkeypatch.setattr(instantir_pictures, "TILES_PER_OVERLAP", 10**6)
    unblended = parts.restore(flat, options, 1, one, tile=64).latent

    def jump(latent: Tensor) -> float:
        return float((latent - whole).diff(dim=-1).abs().mean(dim=(0, 1, 2)).max())

    assert jump(tiled) <= 0.4 * jump(unblended)
    assert worst(tiled, whole) < 0.1
    left, right = tiled[..., :16].flatten(), tiled[..., 32:].flatten()
    assert abs(float(torch.corrcoef(torch.stack([left, right]))[0, 1])) < 0.1


def test_the_tile_asked_for_changes_nothing_above_what_the_prior_was_trained_on(parts: Parts) -> None:
    latent, one = torch.randn(1, 4, 16, 40, generator=torch.Generator().manual_seed(0)), seen_by(parts, 0)
    expected = parts.restore(latent, SHORT, 1, one, tile=64).latent
    small = replace(parts, prior=replace(parts.prior, largest_side=16))
    widths: set[int] = set()
    hook = parts.unet.conv_in.register_forward_pre_hook(lambda _, inputs: widths.add(inputs[0].shape[-1]))
    found = [small.restore(latent, SHORT, 1, one, tile=tile).latent for tile in (64, 128, 1024)]
    hook.remove()
    assert all(torch.equal(other, expected) for other in found) and widths == {16}


@contextmanager
def small_device(network: nn.Module, side: int) -> Iterator[None]:
    """The network runs out of memory for latents wider than that."""

    def refuse(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].shape[-1] > side:
            torch.empty(10**15)

    hook = network.register_forward_pre_hook(refuse)
    try:
        yield
    finally:
        hook.remove()


def test_out_of_memory_is_tried_again_with_smaller_tiles_and_the_same_noise(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    latent = torch.randn(2, 4, 8, 64, generator=torch.Generator().manual_seed(0))
    expected = parts.restore(latent, SHORT, tile=128)
    with small_device(parts.unet.conv_in, 32), using_host(WatchingHost()) as host:
        found = parts.restore(latent, SHORT, tile=1024)
    assert [record.args for record in caplog.records if "again" in record.msg] == [(128,)]
    assert torch.equal(found.latent, expected.latent) and torch.equal(found.previews, expected.previews)
    assert sum(host.advanced) == host.total == 4


def test_what_was_restored_before_memory_ran_out_is_not_restored_again(parts: Parts) -> None:
    latent = torch.randn(2, 4, 8, 64, generator=torch.Generator().manual_seed(0))
    first = parts.restore(latent[:1], SHORT, context=seen_by(parts, 0)).latent
    second = parts.restore(latent[1:], SHORT, 1, seen_by(parts, 1), tile=128).latent
    host = WatchingHost()
    calls: list[int] = []

    def refuse(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls.append(inputs[0].shape[-1])
        if inputs[0].shape[-1] > 32 and sum(host.advanced) == 3:
            torch.empty(10**15)

    hook = parts.unet.conv_in.register_forward_pre_hook(refuse)
    with using_host(host):
        found = parts.restore(latent, SHORT).latent
    hook.remove()
    assert torch.equal(found, torch.cat([first, second]))
    assert host.advanced == [1, 1, 1, 0, 1]
    assert calls.count(64) == 2 * 4 + 4 + 1


def test_a_device_too_small_for_the_smallest_tile_is_an_error_with_a_way_out(parts: Parts) -> None:
    with small_device(parts.unet.conv_in, 4), pytest.raises(OutOfMemoryError, match=r"tiles of \d+ pixels do not fit the memory either"):
        parts.restore(torch.zeros(1, 4, 8, 64), SHORT, context=seen_by(parts, 0))


# --- progress and cancel


@dataclass
class WatchingHost(LocalHost):
    """Looks at what it is shown; its person cancels after so many steps."""

    device: torch.device = CPU
    patience: int = 10**6
    total: int = 0
    advanced: list[int] = field(default_factory=list)
    pictures: list[Tensor] = field(default_factory=list)
    looks_at_pictures: bool = False
    checks: int = 0

    def progress(self, total: int, label: str) -> Progress:
        assert label == "Restoring"
        self.total = total
        return self

    def advance(self, steps: int = 1, preview: MakesPicture | None = None) -> None:
        self.advanced.append(steps)
        assert preview is not None
        if self.looks_at_pictures:
            self.pictures.append(preview())

    def check_interrupted(self) -> None:
        self.checks += len(self.advanced) >= self.patience
        if self.checks:
            raise Interrupted


def test_every_step_moves_the_bar_and_has_a_small_picture(parts: Parts) -> None:
    with using_host(WatchingHost(looks_at_pictures=True)) as host:
        restored = parts.restore(parts.latent, replace(SHORT, preview_start=0.5))
    assert host.total == 4 and host.advanced == [1, 1, 1, 1]
    assert all(picture.shape == (40, 52, 3) and picture.min() >= 0 and picture.max() <= 1 for picture in host.pictures)
    assert torch.equal(host.pictures[1], small_picture(parts.prior.codec, restored.previews[:1]))


def test_pictures_of_progress_stay_small(parts: Parts) -> None:
    assert small_picture(parts.prior.codec, torch.zeros(1, 4, 4, 300)).shape == (4, 4 * SHOWN_SIDE, 3)


@pytest.mark.parametrize("tile", [1024, 32])
def test_a_cancelled_run_stops_within_a_step_and_leaves_the_networks_as_they_were(parts: Parts, tile: int) -> None:
    options, calls = replace(SHORT, steps=5), 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    expected = parts.restore(parts.latent, options, tile=tile)
    hook = parts.unet.register_forward_hook(count)
    with using_host(WatchingHost(patience=3)) as host, pytest.raises(Interrupted):
        parts.restore(parts.latent, options, tile=tile)
    hook.remove()
    assert len(host.advanced) == 3 and host.checks == 1
    tiles = 1 if tile == 1024 else 2 * 2
    assert calls == 3 * 4 * tiles
    assert torch.equal(parts.restore(parts.latent, options, tile=tile).latent, expected.latent)


# --- refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps: it is 0. Choose 1 to 1000"),
        ({"steps": 1001}, "steps: it is 1001"),
        ({"guidance": 0.5}, "guidance: it is 0.5. Choose at least 1"),
        ({"guidance": float("nan")}, "guidance: it is nan"),
        ({"guidance_rescale": 1.5}, "guidance_rescale: it is 1.5. Choose 0 to 1"),
        ({"strength": -0.1}, "strength: it is -0.1. Choose at least 0"),
        ({"preview_every": 0}, "preview_every: it is 0"),
        ({"control_start": 12}, "control_start, creative_start: the window opens at 12 and closes at 1.0. Choose both from 0 to 1"),
        ({"preview_start": 0.6, "preview_end": 0.4}, "preview_start, preview_end: the window opens at 0.6 and closes at 0.4"),
        ({"control_start": 0.6, "creative_start": 0.4}, "control_start, creative_start: the window opens at 0.6"),
        ({"sampler": "euler"}, "sampler: there is no 'euler'. Choose one of ddpm, ddim"),
        ({"adares": "on"}, "adares: there is no 'on'. Choose one of off, paper, released"),
    ],
)
def test_options_without_a_meaning_are_refused(parts: Parts, change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadValueError, match=message):
        parts.restore(parts.latent, replace(SHORT, **change))


def test_a_thousand_steps_stay_inside_the_schedule() -> None:
    assert (leading_timesteps(1000)[0], leading_timesteps(1000)[-1], leading_timesteps(1)) == (999, 1, [1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda latent: {"latent": latent[:, :3]}, r"the latent is \[2, 3, 10, 13\], expected \[batch, 4, height, width\]"),
        (lambda latent: {"latent": latent * float("nan")}, "The latent has 1040 values that are not finite"),
        (lambda latent: {"reference": latent[..., 1:]}, r"reference: it is \[2, 4, 10, 12\], the latent is \[2, 4, 10, 13\]"),
        (lambda latent: {"reference": latent.repeat(2, 1, 1, 1)}, "reference: it is"),
        (lambda latent: {"reference": latent / 0}, "not finite"),
    ],
)
def test_latents_that_do_not_fit_are_refused(parts: Parts, make: Callable[[Tensor], dict[str, Tensor]], message: str) -> None:
    with pytest.raises(KintsugiError, match=message):
        parts.restore(**{"latent": parts.latent, "options": SHORT, **make(parts.latent)})


def test_a_prior_that_gives_no_numbers_is_told_of(parts: Parts) -> None:
    hook = parts.unet.register_forward_hook(lambda _, __, output: type(output)(output.sample * float("nan")))
    with pytest.raises(KintsugiError, match=r"The restored latent has 1040 values that are not finite numbers.*choose dtype fp32"):
        parts.restore(parts.latent, SHORT)
    hook.remove()


# --- perception


def test_what_is_perceived_of_a_picture_does_not_depend_on_its_neighbours(parts: Parts) -> None:
    pictures = torch.rand(3, 50, 30, 3)
    for crop in ("published", "whole image"):
        together = perceive(parts.perceptor, pictures, crop, (0.5, 1.0))
        assert torch.equal(together.tokens[1:2], perceive(parts.perceptor, pictures[1:2], crop).tokens)
    assert together.weights == (0.5, 1.0) and together.blank.shape[0] == 1


def test_pictures_that_cannot_be_perceived_are_refused(parts: Parts) -> None:
    for pictures, crop, message in (
        (torch.rand(1, 20, 20, 4), "published", r"image: the picture is \[1, 20, 20, 4\]"),
        (torch.rand(1, 20, 20, 3) / 0, "published", "not finite"),
        (torch.rand(1, 20, 20, 3), "left half", "crop: there is no crop 'left half'. Choose one of published, whole image"),
    ):
        with pytest.raises(KintsugiError, match=message):
            perceive(parts.perceptor, pictures, crop)


def test_weights_are_numbers_between_commas() -> None:
    assert parse_weights("1") == (1.0,) and parse_weights(" 0.5, 2") == (0.5, 2.0)
    for text in ("", "1,", "much", "-1", "nan", "inf"):
        with pytest.raises(BadValueError, match=r"image_weights: .* is no list of numbers from 0 up"):
            parse_weights(text)


def test_weights_of_the_image_count_per_level(parts: Parts) -> None:
    levels = len(UNET["block_out_channels"]) - 1
    results = [
        parts.restore(parts.latent, SHORT, context=replace(parts.context, weights=weights)).latent
        for weights in ((1.0,), (1.0,) * levels, (0.0, 1.0), (0.0,))
    ]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[2], results[0]) and not torch.equal(results[3], results[2])
