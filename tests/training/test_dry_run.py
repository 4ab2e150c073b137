"""What a dry run tells of every recipe that ships."""

from __future__ import annotations

import pytest
import torch
from kintsugi.core.errors import KintsugiError
from kintsugi.training.dry_run import DryRun, dry_run
from kintsugi.training.recipe import load_recipe, recipe_names
from kintsugi.training.stages import build_stage

SD21_VAE16, PIXART = 865_979_856, 610_856_096
PROJECTOR = 320 * 2048 + 2048 + 2048 * 2048 + 2048 + 2048 * 768 + 768
HEAD = 1280 * 256 * 9 + 256 + 2 * 256 + 256 + 1
TWO_PIXARTS = {"generator": PIXART, "fake": PIXART}

# Trained parameters by turn, from the specifications.
TRAINED: dict[str, dict[str, int]] = {
    "fluxir": {"adapter": 409_943_872},
    "gendr": {"generator": SD21_VAE16 + PROJECTOR, "fake": 61_417_472, "real": 61_417_472, "discriminator": 2 * HEAD},
    "gendr-base": {"base": SD21_VAE16 + PROJECTOR},
    "instantir-aggregator": {"aggregator": 1_004_809_280},
    "instantir-dcp": {"dcp": 82_695_424 + 767_104_000},
    "instantir-previewer": {"previewer": 232_173_568},
    "instarevive-bfr": TWO_PIXARTS,
    "instarevive-bsr": TWO_PIXARTS,
    "instarevive-cartoon": TWO_PIXARTS,
    "instarevive-derain": TWO_PIXARTS,
    "instarevive-identity": TWO_PIXARTS,
    "instarevive-inpainting": TWO_PIXARTS,
    "instarevive-low-light": TWO_PIXARTS,
    "instarevive-salt-and-pepper": TWO_PIXARTS,
    "instarevive-unet": {"generator": SD21_VAE16, "fake": SD21_VAE16},
    "tsd-sr": {"student": 89_268_224 + 5_910_208, "auxiliary": 33_030_144},
    "tsd-sr-teacher": {"teacher": 89_268_224},
}  # fmt: skip


def told(name: str, **changes: str) -> DryRun:
    return dry_run(load_recipe(name, changes))


def test_every_full_size_recipe_has_its_figure_here() -> None:
    assert sorted(TRAINED) == [name for name in recipe_names() if not name.startswith("mini-")]


@pytest.mark.parametrize("name", TRAINED)
def test_a_full_size_recipe_trains_as_many_parameters_as_its_paper(name: str) -> None:
    assert told(name).trainable == TRAINED[name]


@pytest.mark.parametrize("name", TRAINED)
def test_a_full_size_recipe_is_built_without_its_memory(name: str) -> None:
    with torch.device("meta"):
        stage = build_stage(load_recipe(name))
    networks = [*stage.networks.values(), *stage.frozen.values(), *([stage.vae] if stage.vae else [])]
    assert {parameter.device.type for network in networks for parameter in network.parameters()} == {"meta"}


@pytest.mark.parametrize("name", ["mini-vae", "mini-swinir", "mini-restorer", "mini-sd3-prior", "mini-fluxir", "mini-instantir-dcp"])
def test_a_mini_recipe_is_told_in_its_own_size(name: str) -> None:
    found = told(name)
    assert sum(size.parameters for size in found.networks) < 30_000_000


def test_parts_of_a_network_and_what_several_share_are_counted_once() -> None:
    found = told("gendr")
    parts = {size.name: size.parameters for size in found.networks if size.is_part}
    assert parts == {
        "generator.unet": SD21_VAE16, "generator.projector": PROJECTOR,
        "discriminator.down_blocks": HEAD, "discriminator.mid_block": HEAD,
    }  # fmt: skip
    base = next(size for size in found.networks if size.name == "base")
    assert (base.turn, base.parameters, base.trainable) == (None, SD21_VAE16, 0)


def test_memory_is_shared_out_as_the_sharding_says() -> None:
    whole, zero2, fsdp = told("instantir-dcp", processes="8").memory
    trained = TRAINED["instantir-dcp"]["dcp"]
    assert (whole.trained, whole.gradients, whole.optimizer, whole.average) == (4 * trained, 4 * trained, 8 * trained, 4 * trained)
    assert (zero2.trained, zero2.gradients, zero2.optimizer) == (whole.trained, whole.gradients // 8, whole.optimizer // 8)
    assert (fsdp.trained, fsdp.gradients, fsdp.optimizer) == (whole.trained // 8, whole.gradients // 8, whole.optimizer // 8)
    assert whole.frozen == zero2.frozen == fsdp.frozen
    assert whole.total == whole.trained + whole.frozen + whole.gradients + whole.optimizer + whole.average


def test_frozen_networks_take_the_memory_of_their_precision() -> None:
    exact, half = (told("instantir-dcp", frozen_precision=precision).memory[0].frozen for precision in ("'no'", "bf16"))
    assert exact == 2 * half


def test_the_batch_counts_processes_and_accumulated_batches() -> None:
    found = told("mini-vae", batch="3", accumulate="4", processes="5", steps="7")
    assert (found.batch, found.pictures) == (60, 420)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizers": "{}"}, "optimizers"),
        ({"optimizers": "{vea: {learning_rate: 1.0e-4}}"}, "expected one for each turn of mini-vae: vae"),
        ({"phases": "[{until: 5, weights: {pixles: 1}}]"}, "no loss 'pixles'.*Its losses: gradient, kl, moments, pixel"),
        ({"phases": "[{until: 5, weights: {pixel: 1}}, {until: 5, weights: {pixel: 1}}]"}, "phases.*later than the one before"),
        ({"stage": "mini-vea"}, "unknown stage 'mini-vea'.*mini-vae"),
        ({"settings.chanels": "[1]"}, "settings: chanels: there is no such key"),
        ({"data.corp": "64"}, r"data\.corp: there is no such key; did you mean crop"),
        ({"data.degradation": "{mild: 1, mils: 1}"}, "mils"),
        ({"data.mix": "[{source: folder, folder: a, weigth: 1}]"}, r"data\.mix\.0\.weight: Field required"),
        ({"optimizers.vae.learning_rate": "-1"}, r"optimizers\.vae\.learning_rate: Input should be greater than 0"),
    ],
)  # fmt: skip
def test_a_faulty_recipe_is_told_by_the_entry(changes: dict[str, str], message: str) -> None:
    with pytest.raises(KintsugiError, match=message):
        told("mini-vae", **changes)
