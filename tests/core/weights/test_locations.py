from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from kintsugi.core.errors import FileAccessError, WeightsError
from kintsugi.core.folders import Folders
from kintsugi.core.runtime import LocalHost
from kintsugi.core.weights.locations import find_files, find_weights, read_extra_model_paths, with_extra_model_paths


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_files_are_named_by_their_place_below_the_kind(host: LocalHost) -> None:
    models = host.folders.models
    plain, nested = touch(models / "vae/a.safetensors"), touch(models / "vae/sub/b.sft")
    touch(models / "vae/c.ckpt")
    touch(models / "vae/.cache/d.safetensors")
    assert find_files("vae") == {"a.safetensors": plain, "sub/b.sft": nested}


def test_a_method_has_its_own_folder_below_kintsugi(host: LocalHost) -> None:
    path = touch(host.folders.models / "kintsugi/gendr/generator.safetensors")
    touch(host.folders.models / "kintsugi/tsd-sr/transformer.safetensors")
    assert find_files("kintsugi/gendr") == {"generator.safetensors": path}
    assert find_weights("kintsugi/gendr", "generator.safetensors") == path


@pytest.mark.parametrize("name", ["../secret.safetensors", "sub/../../secret.safetensors", "/etc/passwd"])
def test_a_name_that_leaves_its_folder_is_refused(host: LocalHost, name: str) -> None:
    touch(host.folders.models / "secret.safetensors")
    with pytest.raises(WeightsError, match="leaves the folder"):
        find_weights("vae", name)


def test_missing_weights_name_every_folder_searched(host: LocalHost) -> None:
    with pytest.raises(WeightsError, match=r"no weights named 'x.safetensors'.*searched .*vae"):
        find_weights("vae", "x.safetensors")


def test_a_pickle_is_pointed_to_the_converter(host: LocalHost) -> None:
    touch(host.folders.models / "vae/old.ckpt")
    with pytest.raises(WeightsError, match=r"kintsugi convert old\.ckpt old\.safetensors"):
        find_weights("vae", "old.ckpt")


def test_a_link_to_another_disk_is_followed_and_a_circle_ends(host: LocalHost, tmp_path: Path) -> None:
    target = touch(tmp_path / "disk/real.safetensors")
    folder = host.folders.models / "loras"
    folder.mkdir()
    (folder / "big").symlink_to(target.parent)
    (target.parent / "again").symlink_to(folder)
    assert list(find_files("loras")) == ["big/real.safetensors"]
    assert find_weights("loras", "big/real.safetensors").is_file()


YAML = """
mine:
    base_path: $KINTSUGI_TEST_BASE/art
    checkpoints: models/checkpoints
    unet: |
        unet
        /absolute/unet
    kintsugi: restorers
preferred:
    base_path: here
    is_default: true
    vae: vae
    custom_nodes: nodes
empty:
"""


def test_extra_model_paths_are_read_as_comfyui_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINTSUGI_TEST_BASE", str(tmp_path / "base"))
    file = tmp_path / "extra_model_paths.yaml"
    file.write_text(YAML)
    folders = with_extra_model_paths(Folders(models=tmp_path / "models"), [file])
    art = tmp_path / "base/art"
    assert folders.of_models("checkpoints") == [tmp_path / "models/checkpoints", art / "models/checkpoints"]
    assert folders.of_models("diffusion_models") == [tmp_path / "models/diffusion_models", art / "unet", Path("/absolute/unet")]
    assert folders.of_models("kintsugi/gendr") == [tmp_path / "models/kintsugi/gendr", art / "restorers/gendr"]
    assert folders.of_models("vae") == [tmp_path / "here/vae", tmp_path / "models/vae"]


def test_the_first_folder_wins_when_two_have_the_same_name(host: LocalHost, tmp_path: Path) -> None:
    first, second = touch(tmp_path / "one/x.safetensors"), touch(tmp_path / "two/x.safetensors")
    host.folders = replace(host.folders, model_paths={"vae": (first.parent, second.parent)})
    assert find_files("vae") == {"x.safetensors": first}


@pytest.mark.parametrize("text", ["- a\n- b\n", "section: words\n", "section:\n  vae: [a, b]\n", "a: : b", "a:\n\t- b"])
def test_a_malformed_extra_model_paths_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "extra.yaml"
    file.write_text(text)
    with pytest.raises(FileAccessError, match=r"extra\.yaml"):
        read_extra_model_paths(file)
