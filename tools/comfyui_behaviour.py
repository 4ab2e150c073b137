"""How our pack behaves in a real ComfyUI: what it keeps in memory, where it stops, what it is told, and whose latents it reads."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from comfyui_comparison import folder_differences
from comfyui_server import Place, Server, TrialError, kintsugi
from PIL import Image

RUNS = 10
SETTLE_SECONDS = 60
# ComfyUI takes no --lowvram and its like beside --cpu.
FLAGS = ("--bf16-unet", "--fp32-vae", "--fp16-text-enc", "--preview-method", "auto", "--preview-size", "320", "--disable-metadata")
TOLD = {
    "device": "cpu", "dtype": "torch.bfloat16", "vae_dtype": "torch.float32", "text_dtype": "torch.float16", "spares_memory": "False",
    "stores_workflows": "False", "preview_side": "320",
}  # fmt: skip
UNTOLD = {"device": "cpu", "dtype": "torch.float32", "vae_dtype": "None", "text_dtype": "None", "preview_side": "None"}
EXTRA_FILE = "gendr/of_another_disk.safetensors"
LATENT_KINDS = {"sdxl-vae": 4, "sd3-vae": 16, "flux-vae": 16}
# Both sides compute in float32, with other kernels.
GREY_LEVELS = 1


def prompt_of(python: Path, place: Place, workflow: Path) -> dict[str, Any]:
    """The API prompt of a workflow."""
    return dict(kintsugi(python, place, "run", workflow, "--cpu", "--input-directory", place.inputs, "--print-prompt"))


def changed(prompt: dict[str, Any], **values: Any) -> dict[str, Any]:
    """The prompt with those values wherever an input of that name holds one."""
    result = copy.deepcopy(prompt)
    for node in result.values():
        node["inputs"].update({name: value for name, value in values.items() if isinstance(node["inputs"].get(name), (int, float, str))})
    return result


def leftovers(server: Server, prompt: dict[str, Any]) -> list[str]:
    """What lives after ten queued runs beyond what lived after the first."""
    server.run(changed(prompt, seed=0))
    first = server.probe()
    for prompt_id in [server.queue(changed(prompt, seed=seed)) for seed in range(1, RUNS)]:
        server.wait(prompt_id)
    last = server.probe()
    say(f"after the first run {json.dumps(first)}, after {RUNS} {json.dumps(last)}")
    return [f"{name}: {last[name]} live, {first[name]} after the first run" for name in first if last[name] > first[name]]


def released(server: Server, place: Place, prompt: dict[str, Any]) -> list[str]:
    """Whether ComfyUI can take our models' memory, and the pictures that follow are the same."""
    fresh = [pictures(server, place, changed(prompt, seed=seed)) for seed in (0, 1)]
    unloaded = freed(server, {"unload_models": True}, lambda seen: seen["held_bytes"] == 0)
    faults = [] if unloaded["held_bytes"] == 0 else ["models stay loaded after /free"]
    faults += [f"after unloading: {line}" for line in folder_differences(fresh[0], pictures(server, place, changed(prompt, seed=0)))]
    back = server.probe()
    if not back["held_bytes"]:
        faults.append("models did not come back in ComfyUI's list")
    emptied = freed(server, {"unload_models": True, "free_memory": True}, lambda seen: seen["networks"] == 0)
    if emptied["networks"]:
        faults.append(f"{emptied['networks']} networks live after /free with free_memory")
    faults += [f"after freeing: {line}" for line in folder_differences(fresh[1], pictures(server, place, changed(prompt, seed=1)))]
    say(f"unloaded {json.dumps(unloaded)}, back {json.dumps(back)}, freed {json.dumps(emptied)}")
    return faults


def freed(server: Server, wish: dict[str, bool], done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What the probe says once that holds after /free. ComfyUI misses a wish that comes while it tidies up after a run: it is repeated."""

    def told(seen: dict[str, Any]) -> bool:
        if not done(seen):
            server.call("/free", wish)
        return done(seen)

    return settled(server, told)


def settled(server: Server, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What the probe says once that holds, or at the latest a minute later."""
    ends = time.monotonic() + SETTLE_SECONDS
    while True:
        seen = server.probe()
        if done(seen) or time.monotonic() > ends:
            return seen
        time.sleep(0.5)


def pictures(server: Server, place: Place, prompt: dict[str, Any]) -> Path:
    """A folder with the files that a run wrote."""
    kept = place.folder / f"kept-{time.monotonic_ns()}"
    for path in place.theirs.rglob("*.*"):
        path.unlink()
    server.run(prompt)
    place.theirs.rename(kept)
    place.theirs.mkdir()
    return kept


def cancelled(server: Server, prompt: dict[str, Any], least: int) -> list[str]:
    """Whether a run that is interrupted while it takes its steps or tiles ends within one of them."""
    prompt_id = server.queue(changed(prompt, seed=int(time.time())))
    ends = time.monotonic() + 600
    node, done, total = "", 0, 0
    while done < least and time.monotonic() < ends:
        steps = {name: state for name, state in server.call("/kintsugi_probe/steps").items() if state[1] > least}
        node, (done, total) = max(steps.items(), key=lambda item: item[1][0]) if steps else ("", (0, 0))
        time.sleep(0.02)
    server.call("/interrupt", {})
    at, seen = time.monotonic(), server.call("/kintsugi_probe/steps")[node][0] if node else 0
    status = server.wait(prompt_id)["status"]
    seconds, after = time.monotonic() - at, server.call("/kintsugi_probe/steps").get(node, [seen, 0])[0]
    say(f"node {node}: interrupted at {seen} of {total}, ended at {after}, {seconds:.2f} s later")
    events = [name for name, _ in status["messages"]]
    faults = [] if "execution_interrupted" in events else [f"the run was not interrupted: {events[-1]}"]
    return faults if after <= seen + 1 else [*faults, f"{after - seen} steps were taken after the interruption"]


def import_faults(server: Server) -> list[str]:
    """What ComfyUI could not import, from its log."""
    return [line.strip() for line in server.log.read_text().splitlines() if "IMPORT FAILED" in line or "Cannot import" in line]


def told(server: Server, expected: dict[str, str], extra: Path | None = None) -> list[str]:
    """What our host should have been told by ComfyUI's options and was not."""
    found = server.call("/kintsugi_probe/host")
    faults = [f"{name} is {found[name]}, expected {value}" for name, value in expected.items() if found[name] != value]
    if extra is None:
        return faults
    choices = server.call("/object_info/KintsugiLoadGenerator")["KintsugiLoadGenerator"]["input"]["required"]["weights"][0]
    if str(extra / "kintsugi") not in found["folders"] or EXTRA_FILE not in choices:
        faults.append(f"the folder of extra_model_paths.yaml is not searched: {found['folders']}, {choices}")
    return faults


def extra_paths(place: Place) -> tuple[Path, Path]:
    """A yaml that names a folder with one student, and that folder."""
    disk = place.folder / "disk"
    (disk / "kintsugi" / EXTRA_FILE).parent.mkdir(parents=True)
    (disk / "kintsugi" / EXTRA_FILE).touch()
    yaml = place.folder / "extra.yaml"
    yaml.write_text(f"other_disk:\n    base_path: {disk}\n    kintsugi: kintsugi\n", encoding="utf-8")
    return yaml, disk


def make_vaes(python: Path, place: Place) -> None:
    """VAEs of Stable Diffusion's shape, the only one that ComfyUI's loader knows, with drawn weights."""
    folder = place.base / "models" / "vae"
    folder.mkdir(parents=True, exist_ok=True)
    code = (
        "import sys, torch\nfrom diffusers import AutoencoderKL\nfrom safetensors.torch import save_file\n"
        "torch.manual_seed(0)\nchannels = int(sys.argv[1])\nhas = channels == 4\n"
        "vae = AutoencoderKL(latent_channels=channels, block_out_channels=(128, 256, 512, 512), layers_per_block=2, "
        "down_block_types=('DownEncoderBlock2D',) * 4, up_block_types=('UpDecoderBlock2D',) * 4, "
        "use_quant_conv=has, use_post_quant_conv=has)\n"
        "vae.decoder.conv_out.weight.data *= 8\nvae.encoder.conv_out.weight.data *= 20\n"
        "save_file({name: tensor.contiguous() for name, tensor in vae.state_dict().items()}, sys.argv[2])\n"
    )
    for channels in sorted(set(LATENT_KINDS.values())):
        subprocess.run([str(python), "-c", code, str(channels), str(folder / f"drawn{channels}.safetensors")], check=True)


def interchanged(server: Server, place: Place, configuration: str) -> list[str]:
    """Whether ComfyUI's VAE Encode and VAE Decode and ours read each other's latents, as pictures."""
    name = f"drawn{LATENT_KINDS[configuration]}.safetensors"
    picture = place.inputs / "trial_64.png"
    if not picture.exists():
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).resize((64, 64)).save(picture)
    prompt: dict[str, Any] = {
        "vae": {"class_type": "VAELoader", "inputs": {"vae_name": name}},
        "prior": {"class_type": "ProbePrior", "inputs": {"vae": name, "configuration": configuration}},
        "photo": {"class_type": "LoadImage", "inputs": {"image": picture.name}},
        "theirs": {"class_type": "VAEEncode", "inputs": {"pixels": ["photo", 0], "vae": ["vae", 0]}},
        "ours": {"class_type": "KintsugiEncode", "inputs": {"image": ["photo", 0], "prior": ["prior", 0], "tile": 512}},
    }
    for encoder in ("theirs", "ours"):
        decoders = {
            "theirs": {"class_type": "VAEDecode", "inputs": {"samples": [encoder, 0], "vae": ["vae", 0]}},
            "ours": {"class_type": "KintsugiDecode", "inputs": {"latent": [encoder, 0], "prior": ["prior", 0], "tile": 512}},
        }
        for decoder, node in decoders.items():
            way = f"{encoder}_{decoder}"
            prompt[way] = node
            # A name of its own: what the cache holds of an earlier run is written again.
            prompt[f"save_{way}"] = {"class_type": "SaveImage", "inputs": {"images": [way, 0], "filename_prefix": f"{configuration}-{way}"}}
    folder = pictures(server, place, prompt)
    made = {path.name.split("-")[-1].partition("_0")[0]: np.asarray(Image.open(path)).astype(int) for path in folder.glob("*.png")}
    expected = made["theirs_theirs"]
    if expected.std() < 2:
        raise TrialError(f"the drawn VAE's picture is flat: {expected.std():.2f} grey levels")
    levels = {way: int(np.abs(picture - expected).max()) for way, picture in made.items()}
    say(f"{configuration}: spread {expected.std():.1f} grey levels, differences {json.dumps(levels)}")
    return [f"{way} differs by {level} grey levels" for way, level in levels.items() if level > GREY_LEVELS]


def say(measured: str) -> None:
    sys.stdout.write(f"  measured: {measured}\n")
    sys.stdout.flush()
