"""TSD-SR's files: the names of the release, read whole, written and read again, and refused by name when they do not fit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from kintsugi.core.errors import BadValueError, WeightsError
from kintsugi.core.methods.one_step import Generator, Tiling, restore
from kintsugi.core.methods.tsd_sr import OneStepConstants, TsdSr
from kintsugi.core.models.folding import memory_of
from kintsugi.core.models.mini import build_sd3_transformer, build_vae
from kintsugi.core.models.prompt import PromptEmbedding
from kintsugi.core.runtime import LocalHost
from kintsugi.core.weights import embedded
from kintsugi.core.weights.configs import shipped_config
from kintsugi.core.weights.convert import convert_pickle
from kintsugi.core.weights.files import read_weights, write_weights
from kintsugi.core.weights.generators import load_generator, weights_choices
from kintsugi.core.weights.lora import adapter_shapes
from kintsugi.core.weights.options import LoadOptions
from kintsugi.core.weights.tsd_sr import POSITIONS, TRANSFORMER_TARGETS, VAE_TARGETS, read_generator
from originals.tsd_sr import MANIFEST
from originals.tsd_sr_files import RANK, TRANSFORMER, Release, rewritten, write_release
from torch import Tensor, nn

UNFOLDED = LoadOptions(fold_constants=False)
CLOSE = {torch.float32: {"rtol": 1e-5, "atol": 1e-5}, torch.bfloat16: {"rtol": 0.02, "atol": 0.02}}


@pytest.fixture
def release(host: LocalHost) -> Release:
    return write_release(host.folders.models, layers=2)


def manifest() -> dict[str, Any]:
    return json.loads(MANIFEST.read_text())


def full_size(part: str) -> dict[str, Tensor]:
    """The published network of Stable Diffusion 3 on the meta device."""
    with torch.device("meta"):
        network = (
            build_sd3_transformer(shipped_config("sd3-transformer")) if part == "transformer" else build_vae(shipped_config("sd3-vae"))
        )
    return dict(network.state_dict())


def shapes_of(tensors: dict[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


# --- the names of the release


@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_the_full_size_base_has_the_names_and_shapes_of_the_manifest(part: str) -> None:
    assert shapes_of(full_size(part)) == manifest()["base_state_dict"][part]


@pytest.mark.parametrize(
    ("part", "targets", "file"),
    [("transformer", TRANSFORMER_TARGETS, "transformer.safetensors"), ("vae", VAE_TARGETS, "vae.safetensors")],
)
def test_the_adapters_have_the_names_and_shapes_of_the_manifest(part: str, targets: Sequence[str], file: str) -> None:
    expected = adapter_shapes(full_size(part), targets, RANK)
    assert {name: list(shape) for name, shape in expected.items()} == manifest()["files"][file]
    assert len(expected) == manifest()["counts"][file]["tensors"]


@pytest.mark.parametrize("name", ["student_transformer", "teacher", "reg", "student_vae"])
def test_the_targets_of_the_manifest_lead_to_its_names(name: str) -> None:
    content = manifest()
    part = "vae" if name == "student_vae" else "transformer"
    file = {"reg": "transformer_reg.safetensors", "student_vae": "vae.safetensors"}.get(name, "transformer.safetensors")
    expected = adapter_shapes(full_size(part), content["lora"][name]["target_modules"], RANK)
    assert {key: list(shape) for key, shape in expected.items()} == content["files"][file]


def test_adapters_of_the_golden_folder_have_the_names_that_targets_lead_to() -> None:
    folder = MANIFEST.parent
    base, _ = read_weights(folder / "weights_transformer.safetensors")
    for name, part in (("lora_reg", "reg"), ("lora_transformer", "transformer")):
        lora = json.loads((folder / f"{name}.json").read_text())["config"]["lora"][part]
        stored, _ = read_weights(folder / f"{name}.safetensors")
        assert {key: tuple(tensor.shape) for key, tensor in stored.items()} == adapter_shapes(base, lora["targets"], lora["r"])


# --- read, written, read again


def state_of(generator: Generator) -> dict[str, Tensor]:
    method = generator.method
    assert isinstance(method, nn.Module)
    return {**method.state_dict(), **{f"vae.{name}": tensor for name, tensor in generator.prior.codec.vae.state_dict().items()}}


def require_equal(one: Generator, other: Generator) -> None:
    first, second = state_of(one), state_of(other)
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) and first[name].dtype == second[name].dtype for name in first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_release_of_24_layers_is_read_written_and_read_again_bit_by_bit(host: LocalHost, dtype: torch.dtype) -> None:
    release = write_release(host.folders.models)
    assert set(release.transformer_adapter) == set(manifest()["files"]["transformer.safetensors"])
    assert set(release.vae_adapter) == set(manifest()["files"]["vae.safetensors"])
    options = LoadOptions(dtype=dtype, fold_constants=False)
    generator = read_generator(release.student, options)
    for name in ("transformer", "vae"):
        path = release.student.with_name(f"{name}.safetensors")
        tensors, _ = read_weights(path)
        write_weights(path, tensors, {}, dtype=None)
        again, _ = read_weights(path)
        assert all(torch.equal(tensor, again[key]) and tensor.dtype == again[key].dtype for key, tensor in tensors.items())
    require_equal(read_generator(release.student, options), generator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_whole_file_of_ours_holds_what_was_read_bit_by_bit(release: Release, tmp_path: Path, dtype: torch.dtype) -> None:
    options = LoadOptions(dtype=dtype, fold_constants=False)
    generator = read_generator(release.student, options)
    vae = generator.prior.codec.vae
    write_weights(tmp_path / "own-vae.safetensors", dict(vae.state_dict()), {"kind": "vae", "vae": dict(vae.config)}, dtype=None)
    config = {
        "kind": "tsd-sr", "transformer": {**TRANSFORMER, "num_layers": 2}, "vae": "own-vae.safetensors",
        "one_step": {"latent_offset": 1.5305 * 0.0609},
    }  # fmt: skip
    write_weights(tmp_path / "own.safetensors", dict(generator.method.state_dict()), config, dtype=None)  # type: ignore[attr-defined]
    own = read_generator(tmp_path / "own.safetensors", options)
    require_equal(own, generator)
    picture = torch.rand(1, 40, 48, 3)
    # Not to the bit: where a tensor lies in its file decides how processors load it, and so the last bits of a product.
    torch.testing.assert_close(restore(own, picture, 1.0, 3, Tiling()), restore(generator, picture, 1.0, 3, Tiling()), **CLOSE[dtype])


def test_the_table_of_positions_may_be_left_out_where_its_class_computes_it(tmp_path: Path) -> None:
    tensors, config = own_student()
    computed = read_generator(written(tmp_path / "a.safetensors", tensors, config), UNFOLDED)
    table = computed.method.state_dict()["transformer.pos_embed.pos_embed"]  # type: ignore[attr-defined]
    stored = written(tmp_path / "b.safetensors", {**tensors, "transformer.pos_embed.pos_embed": table}, config)
    require_equal(read_generator(stored, UNFOLDED), computed)


def own_student() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and configuration of a small whole file of ours, without the table of positions."""
    config = {**TRANSFORMER, "num_layers": 1, "pos_embed_max_size": 40}
    torch.manual_seed(0)
    prompt = PromptEmbedding(torch.randn(1, 2, config["joint_attention_dim"]), torch.randn(1, config["pooled_projection_dim"]))
    method = TsdSr(build_sd3_transformer(config), prompt, OneStepConstants())
    tensors = {name: tensor for name, tensor in method.state_dict().items() if name != f"transformer.{POSITIONS}"}
    return tensors, {"kind": "tsd-sr", "transformer": config, "one_step": {}, "border": 8, "vae": "embedded"}


def written(path: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> Path:
    write_weights(path, tensors, config, dtype=None)
    return path


# --- what is read does what the original does


@torch.no_grad()
def test_merged_and_folded_is_the_original_with_its_adapters_beside(release: Release) -> None:
    method = read_generator(release.student, LoadOptions()).method
    latent, offset = torch.randn(2, 16, 10, 12), 1.5305 * 0.0609
    expected = torch.cat([row - release.original.velocity(row + offset) for row in latent.split(1)])
    found = method.restore_latent(latent, None)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@torch.no_grad()
def test_the_adapted_encoder_belongs_to_the_prior(release: Release) -> None:
    codec, picture = read_generator(release.student, LoadOptions()).prior.codec, torch.rand(1, 3, 48, 64)
    mean = release.original.vae.encode(2 * picture - 1).latent_dist.mean
    expected = (mean - 0.0609) * 1.5305
    assert (codec.encode(picture) - expected).abs().max() <= 1e-5 * expected.abs().max()
    release.original.vae.disable_adapters()
    assert (codec.encode(picture) - expected).abs().max() < 0.01 * (
        release.original.vae.encode(2 * picture - 1).latent_dist.mean - mean
    ).abs().max()


def test_folding_drops_more_than_a_third_and_changes_nothing(host: LocalHost) -> None:
    student = write_release(host.folders.models, layers=3).student
    folded, unfolded = (read_generator(student, LoadOptions(fold_constants=fold)).method for fold in (True, False))
    latent = torch.randn(1, 16, 8, 8)
    torch.testing.assert_close(folded.restore_latent(latent, None), unfolded.restore_latent(latent, None), rtol=1e-6, atol=1e-6)
    assert memory_of(folded.transformer) < 0.66 * memory_of(unfolded.transformer)  # type: ignore[attr-defined]


def test_another_prompt_needs_unfolded_constants_and_its_widths(release: Release) -> None:
    method, latent = read_generator(release.student, UNFOLDED).method, torch.randn(1, 16, 8, 8)
    other = PromptEmbedding(torch.randn(1, 3, 12), torch.randn(1, 10))
    assert not torch.equal(method.with_prompt(other).restore_latent(latent, None), method.restore_latent(latent, None))
    for prompt, fault in (
        (PromptEmbedding(torch.randn(1, 3, 13), torch.randn(1, 10)), r"is \[1, 3, 13\], expected \[1, tokens, 12\]"),
        (PromptEmbedding(torch.randn(1, 3, 12)), r"pooled prompt embedding is missing, expected \[1, 10\]"),
    ):
        with pytest.raises(BadValueError, match=fault):
            method.with_prompt(prompt)
    with pytest.raises(BadValueError, match="built in"):
        read_generator(release.student, LoadOptions()).method.with_prompt(other)


def test_the_posterior_is_sampled_by_the_seed_or_its_mean_is_taken(release: Release) -> None:
    picture = torch.rand(1, 32, 48, 3)
    sampled, mean = (read_generator(release.student, LoadOptions(posterior=kind)) for kind in ("sample", "mean"))  # type: ignore[arg-type]
    first = restore(sampled, picture, 1.0, 5, Tiling())
    assert torch.equal(restore(sampled, picture, 1.0, 5, Tiling()), first)
    assert not torch.equal(restore(sampled, picture, 1.0, 6, Tiling()), first)
    assert torch.equal(restore(mean, picture, 1.0, 5, Tiling()), restore(mean, picture, 1.0, 6, Tiling()))


# --- where files lie, and what is refused


def test_auto_takes_the_release_and_companions_are_no_students(release: Release, caplog: pytest.LogCaptureFixture) -> None:
    assert weights_choices() == ["auto", "embedded", "tsd-sr/transformer.safetensors"]
    assert load_generator("tsd-sr").name == "tsd-sr (transformer)"


def test_prompts_are_read_as_the_converter_makes_them_of_the_published_pickles(release: Release) -> None:
    expected = read_generator(release.student, UNFOLDED)
    for name, tensor in (("prompt_embeds", release.original.prompt), ("pool_embeds", release.original.pooled)):
        path = release.student.with_name(f"{name}.pt")
        torch.save(tensor, path)
        convert_pickle(path, path.with_suffix(".safetensors"), overwrite=True)
    require_equal(read_generator(release.student, UNFOLDED), expected)


def test_students_in_folders_of_their_own_share_the_prompts_above(release: Release) -> None:
    folder = release.student.parent / "tsdsr-mse"
    folder.mkdir()
    for name in ("transformer.safetensors", "vae.safetensors"):
        (folder / name).write_bytes(release.student.with_name(name).read_bytes())
    require_equal(load_generator("tsd-sr", "tsd-sr/tsdsr-mse/transformer.safetensors"), load_generator("tsd-sr"))


def test_an_adapter_of_ours_names_its_rank(host: LocalHost) -> None:
    student = write_release(host.folders.models, layers=2, rank=4).student
    with pytest.raises(WeightsError, match=r"looks like a rank-4 adapter; choose the rank-64 file"):
        read_generator(student, LoadOptions())
    for name in ("transformer.safetensors", "vae.safetensors"):
        path = student.with_name(name)
        write_weights(path, read_weights(path)[0], {"rank": 4}, dtype=None)
    read_generator(student, LoadOptions())


FAULTS = [
    ("transformer", {"transformer.proj_out.lora_B.weight": None}, r"tensor transformer\.proj_out\.lora_B\.weight is missing"),
    ("transformer", {"transformer.extra": torch.zeros(1)}, r"tensor transformer\.extra is unknown"),
    ("transformer", {"transformer.pos_embed.proj.lora_A.weight": torch.zeros(64, 16, 3, 3)}, r"expected \[64, 16, 2, 2\]"),
    ("vae", {"transformer.encoder.conv_in.lora_A.weight": None}, r"conv_in\.lora_A\.weight is missing"),
    ("prompt_embeds", {"prompt_embeds": torch.zeros(1, 7, 13)}, r"is \[1, 7, 13\], expected \[1, tokens, 12\]"),
    ("prompt_embeds", {"prompt_embeds": None, "other": torch.zeros(1)}, "holds other, expected one tensor prompt_embeds"),
    ("pool_embeds", {"pool_embeds": torch.zeros(10)}, r"is \[10\], expected \[1, 10\]"),
]


@pytest.mark.parametrize(("name", "changes", "fault"), FAULTS, ids=[fault for _, _, fault in FAULTS])
def test_files_that_do_not_fit_are_refused_before_anything_is_merged(
    release: Release, monkeypatch: pytest.MonkeyPatch, name: str, changes: dict[str, Any], fault: str
) -> None:
    rewritten(release.student.with_name(f"{name}.safetensors"), **changes)
    monkeypatch.setattr("kintsugi.core.weights.tsd_sr.merge", None)
    with pytest.raises(WeightsError, match=fault) as refused:
        read_generator(release.student, LoadOptions())
    assert str(release.student.parent) in str(refused.value)


@pytest.mark.parametrize("name", ["vae", "prompt_embeds", "pool_embeds"])
def test_half_a_release_names_what_is_missing(release: Release, name: str) -> None:
    path = release.student.with_name(f"{name}.safetensors")
    path.unlink()
    with pytest.raises(WeightsError, match="no such file") as refused:
        read_generator(release.student, LoadOptions())
    assert str(path) in str(refused.value)


def test_a_file_of_another_method_and_half_a_file_of_ours_are_refused(release: Release, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds gendr, not tsd-sr"):
        read_generator(embedded.GENERATORS["gendr"], LoadOptions())
    other, _ = read_weights(embedded.GENERATORS["gendr"])
    with pytest.raises(WeightsError, match=r"tensor transformer\.pos_embed\.proj\.lora_A\.weight is missing"):
        read_generator(written(release.student, other, {}), LoadOptions())
    tensors, config = own_student()
    for name, fault in (("pooled", "tensor pooled is missing"), ("transformer.proj_out.bias", r"tensor proj_out\.bias is missing")):
        kept = {key: tensor for key, tensor in tensors.items() if key != name}
        with pytest.raises(WeightsError, match=fault):
            read_generator(written(tmp_path / "half.safetensors", kept, config), LoadOptions())
