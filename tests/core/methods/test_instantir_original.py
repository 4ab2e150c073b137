"""InstantIR against the same method written once more in tests/originals: on the golden vectors, and on a folder of other numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import parity
import pytest
import torch
from golden_files import GOLDEN
from kintsugi.core.methods.instantir import Options, Step, sample
from kintsugi.core.methods.instantir_assembly import conditions_of
from kintsugi.core.methods.instantir_networks import InstantIR
from kintsugi.core.models.instant_unet import InstantUNet
from originals import instantir_folder as originals
from originals import instantir_records as records
from originals.instantir import Weights
from originals.instantir_loops import Networks, prompt_of, released
from parity_cases import instantir as cases
from parity_cases.sidecar import Sidecar, relative_error
from safetensors.torch import load_file, save_file

LIMIT = 5e-5


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Layers as small as these are slower on two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# --- the other code is to be believed


def sidecar_of(folder: Path, name: str) -> Sidecar:
    sidecar = Sidecar.read(folder / f"{name}.json")
    assert sidecar is not None
    return sidecar


def exact(folder: Path, name: str) -> Weights:
    return originals.exact(sidecar_of(folder, name).tensors)


@pytest.fixture(scope="module")
def golden_networks() -> Networks:
    folder = GOLDEN / "instantir"
    unet, dcp, lora, aggregator = (exact(folder, f"weights_{name}") for name in ("unet", "dcp", "previewer_lora", "aggregator"))
    return Networks.build(json.loads((folder / "config.json").read_text()), {**unet, **dcp}, lora, aggregator)


@pytest.mark.parametrize("name", sorted(path.stem for path in (GOLDEN / "instantir").glob("[a-g]_*.json") if path.stem != "f_inputs"))
def test_the_other_code_says_what_the_original_recorded(golden_networks: Networks, name: str) -> None:
    sidecar = sidecar_of(GOLDEN / "instantir", name)
    with torch.inference_mode():
        record = recomputed(golden_networks, sidecar, originals.exact(sidecar.tensors))
    errors = {key: relative_error(record[key], sidecar.tensor(key)) for key in sidecar.names}
    assert {key: error for key, error in errors.items() if error > sidecar.limit} == {}
    assert set(record) == set(sidecar.names)


def recomputed(networks: Networks, sidecar: Sidecar, given: Weights) -> Weights:
    words, names = sidecar.content, sidecar.names

    def only(*kept: str) -> Weights:
        return {name: given[name] for name in kept}

    match sidecar.path.stem[0]:
        case "a":
            timesteps = [int(name.removeprefix("temb_t")) for name in names if name.startswith("temb_t")]
            return records.resampler(networks, words, only("tokens", "uncond_tokens", "pooled_text", "time_ids"), timesteps)
        case "b":
            return records.attention(networks, words, only("hidden_states", "text_context", "ip_tokens", "temb"))
        case "c":
            prefixes = [name.removesuffix("_mid") for name in names if name.endswith("_mid")]
            return records.aggregator(networks, only(*(name for name in names if name.split("_")[0] not in {*prefixes, "width"})), prefixes)
        case "d":
            return records.unet(networks, words, only(*(name for name in names if not name.startswith("eps") and name != "temb")))
        case "e":
            return records.single_steps(networks, only("sample", "model_output", "timesteps", "batch_timesteps"))
    inputs = exact(sidecar.path.parent, "f_inputs")
    return records.loop(networks, words, inputs, records.recorded_noise(given), len(given["timesteps"]))


# --- a folder of it


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("instantir") / "other"
    originals.write_folder(path)
    return path


def outputs_of(path: Path) -> set[tuple[str, str]]:
    sidecars = [sidecar_of(path, json_path.stem) for json_path in path.glob("[a-g]_*.json")]
    return {(sidecar.path.name, name) for sidecar in sidecars for name in sidecar.names if sidecar.meaning(name) == "output"}


def test_a_folder_with_other_numbers_made_by_other_code_holds(folder: Path) -> None:
    checks = parity.run_parity("instantir", folder)
    assert [parity.line(check) for check in checks if not check.passed] == []
    assert outputs_of(folder) - {(check.file, check.tensor) for check in checks} == set()


def test_the_other_folder_goes_where_the_golden_one_does_not(folder: Path) -> None:
    """Each of these was a reason to write it."""
    free, clamped = (recorded(folder, name, "delta_next", 4) for name in ("g_adares_ddim", "g_adares_ddim_cfg_clamped"))
    assert free[:-1].max() > 1 and clamped[:-1].max() == 1 and clamped[:-1].min() < 1
    assert sidecar_of(folder, "f_loop_code_adares").content["calls"]["agg"] < 4, "a step rests"
    middles = recorded(folder, "f_loop_code_adares_strength", "res_mid", 3).abs().amax((2, 3, 4))
    assert 0 < middles[1, 3] < 0.1 / 0.35 * middles[1, 2], "one picture is above the threshold, the other below"


def recorded(folder: Path, name: str, kind: str, steps: int) -> torch.Tensor:
    tensors = load_file(folder / f"{name}.safetensors")
    return torch.stack([tensors[f"step{step}_{kind}"] for step in range(steps)])


# One of every kind, none of which another check is fed with.
DAMAGED = {
    "a_dcp": ["layer1_after_ff", "uncond_output", "output_lora", "adaln_value_t400"],
    "b_decoupled_attn": ["output_scale05", "output_scale1_lora"],
    "c_aggregator": ["t640_down4", "t1_mid", "width_t77_down0"],
    "d_unet": ["temb", "eps_plain", "eps_dcp_residuals_half", "eps_previewer"],
    "e_lcm": ["c_skip", "c_out", "v_t77", "eps_batch"],
    "f_loop_windows": ["step0_reference", "step1_preview_eps", "step2_res_mid", "step4_x0", "final_latent"],
    "g_adares_ddim_cfg_clamped": ["step1_delta_used", "step2_preview", "step3_z_ref", "step0_delta_next", "step3_eps", "step1_z_next"],
}


def test_a_value_that_is_wrong_by_a_thousandth_fails_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    copy_some(folder, tmp_path, "f_inputs", *DAMAGED)
    for file, names in DAMAGED.items():
        damage(tmp_path / f"{file}.safetensors", names)
    failed = {(check.file, check.tensor) for check in parity.run_parity("instantir", tmp_path) if not check.passed}
    assert failed == {(f"{file}.json", name) for file, names in DAMAGED.items() for name in names}


def test_one_wrong_value_ends_with_status_1(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy_some(folder, tmp_path, "b_decoupled_attn")
    assert parity.main(["instantir", str(tmp_path)]) == 0
    damage(tmp_path / "b_decoupled_attn.safetensors", ["output_scale1"])
    assert parity.main(["instantir", str(tmp_path)]) == 1
    assert capsys.readouterr().out.count("FAIL") == 1


def copy_some(folder: Path, to: Path, *names: str) -> None:
    for path in (path for pattern in ("config", "weights_*", *names) for path in folder.glob(f"{pattern}.*")):
        shutil.copy(path, to)


def damage(path: Path, names: list[str]) -> None:
    """The largest value of each tensor made larger by a thousandth."""
    tensors = load_file(path)
    for name in names:
        tensors[name].flatten()[tensors[name].abs().argmax()] *= 1.001
    save_file(tensors, path)


# --- what the form of the golden folder has no words for


def steps_of(folder: Path, inputs: Weights, options: Options, noise: Weights) -> list[Step]:
    """Ours, fed with the recorded draws."""
    networks = cases.Networks(sidecar_of(folder, "f_inputs"))
    model = InstantIR(InstantUNet(networks.unet, networks.dcp), networks.switch, networks.aggregator, networks.schedule)
    prompt = prompt_of(inputs, options.guidance > 1)
    assert prompt.image is not None
    draws = iter(noise.values())
    with torch.inference_mode(), networks.dcp.attached(networks.unet):
        conditions = conditions_of(model, prompt.image, prompt.text, prompt.pooled, prompt.ids)
        return list(sample(model, inputs["lq_latent"], conditions, options, lambda: next(draws), inputs.get("reference_latent")))


def assert_same(folder: Path, changed: Weights, told: dict[str, object], options: Options) -> None:
    inputs = {**sidecar_of(folder, "f_inputs").tensors, **changed}
    words, random = {**originals.ARGUMENTS, "num_inference_steps": options.steps, **told}, torch.Generator().manual_seed(11)
    draws = {f"draw{index}": torch.randn(originals.LATENT, generator=random) for index in range(options.steps + 1)}
    theirs = iter(draws.values())
    with torch.inference_mode():
        record = released(build(folder), originals.exact(inputs), words, lambda: next(theirs).double())
    for index, step in enumerate(steps_of(folder, inputs, options, draws)):
        found = {"eps": step.eps, "x0": step.x0, "z_next": step.z_next, "reference": step.reference, "res_mid": step.residuals[-1]}
        errors = {name: relative_error(value, record[f"step{index}_{name}"]) for name, value in found.items() if value is not None}
        assert max(errors.values()) <= LIMIT, f"step {index}: {errors}"


def build(folder: Path) -> Networks:
    return originals.build_networks({name: sidecar_of(folder, f"weights_{name}").tensors for name in originals.WEIGHTS})


def test_guidance_rescaled_to_the_spread_of_the_conditional_noise_is_the_release_s(folder: Path) -> None:
    assert_same(folder, {}, {"guidance_rescale": 0.7}, Options(steps=3, guidance=4.5, guidance_rescale=0.7))


def test_the_halves_may_have_size_ids_of_their_own(folder: Path) -> None:
    ids = torch.tensor([[64.0, 64, 0, 0, 32, 32], [48, 40, 0, 16, 48, 40]])
    assert_same(folder, {"negative_time_ids": ids}, {}, Options(steps=2, guidance=4.5))


def test_a_reference_of_its_own_is_what_the_aggregator_sees_outside_the_preview_window(folder: Path) -> None:
    reference = torch.randn(originals.LATENT, generator=torch.Generator().manual_seed(12))
    assert_same(folder, {"reference_latent": reference}, {"preview_start": 1.0}, Options(steps=3, guidance=4.5, preview_start=1.0))
