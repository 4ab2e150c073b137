"""Download a release into the models tree: the only code that uses the network. Resumable, checked, recorded, atomic."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import FileAccessError, KintsugiError, WeightsError
from ..file_names import written_whole
from .catalogue import Release, ReleaseFile

log = logging.getLogger("kintsugi")

_CHUNK = 1 << 20


@dataclass(frozen=True)
class HubFile:
    """What the hub says of one file at one commit. Small files have no sha256 there but their git blob id (a sha1)."""

    path: str
    size: int | None
    sha256: str | None
    git_blob: str | None


def records_path(models: Path) -> Path:
    """Where fetched revisions and checksums are kept."""
    return models / "kintsugi" / "fetched.json"


def read_records(models: Path) -> dict[str, dict[str, object]]:
    """{release: {repository, revision, files: {target: what the hub said}}}; empty when nothing was fetched yet."""
    path = records_path(models)
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise FileAccessError(f"cannot be read: {error}", where=str(path), way_out="Correct or remove the file.") from error


def fetch_release(release: Release, models: Path, revision: str | None = None, say: Callable[[str], None] = log.info) -> list[Path]:
    """Files of the release, in their places below `models`; those already there at that revision are kept.

    revision: a branch, tag or commit; without one the commit of the first fetch, and at the first fetch the newest.
    Pickles are converted on the way, so that only safetensors arrive. Raises WeightsError when the hub cannot be
    reached, does not have it, or sent something whose checksum differs.
    """
    if release.repository is None:
        raise WeightsError(f"{release.name} is not published on the hub. {release.note}", way_out=f"See {release.page}.")
    records = read_records(models)
    known = records.get(release.name, {})
    commit, listing = _listing(release, revision or _text(known.get("revision")))
    have = known.get("files") if known.get("revision") == commit else None
    files: dict[str, object] = dict(have) if isinstance(have, dict) else {}
    records[release.name] = {"repository": release.repository, "revision": commit, "files": files}
    staging = models / "kintsugi" / ".fetch" / release.name
    wanted = [found for file in release.files for found in file.among(listing)]
    for file in wanted:
        target = models / file.target
        if target.is_file() and file.target in files:
            say(f"{target} is there already.")
            continue
        if target.exists() and file.target not in _fetched_targets(known):
            raise FileAccessError("exists and was not fetched by us.", where=str(target), way_out="Move it away first.")
        say(f"Fetching {release.repository}/{file.path} at {commit[:12]}.")
        _fetch_file(release, file, listing, commit, staging, target)
        files[file.target] = asdict(listing[file.path])
        _write_records(models, records)
    shutil.rmtree(staging, ignore_errors=True)
    return [models / file.target for file in wanted]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _fetched_targets(known: dict[str, object]) -> frozenset[str]:
    files = known.get("files")
    return frozenset(files) if isinstance(files, dict) else frozenset()


def _listing(release: Release, revision: str | None) -> tuple[str, dict[str, HubFile]]:
    """The commit that `revision` means, and the files of it by path."""
    from huggingface_hub import HfApi

    with _hub_errors(release):
        info = HfApi().model_info(str(release.repository), revision=revision, files_metadata=True)
    files = {
        entry.rfilename: HubFile(entry.rfilename, entry.size, entry.lfs.sha256 if entry.lfs else None, entry.blob_id)
        for entry in info.siblings or []
    }
    missing = [file.path for file in release.files if not any(found.path in files for found in file.among(files))]
    if missing or info.sha is None:
        raise WeightsError(
            f"{release.repository} has no {', '.join(missing) or 'commit'} at revision {revision or 'main'}.",
            way_out=f"Look at {release.page} and choose another --revision.",
        )
    return info.sha, files


def _fetch_file(release: Release, file: ReleaseFile, listing: dict[str, HubFile], commit: str, staging: Path, target: Path) -> None:
    from huggingface_hub import hf_hub_download

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileAccessError(f"cannot be made: {error}", where=str(target.parent), way_out="Choose a writable models folder.") from error
    with _hub_errors(release):
        downloaded = Path(hf_hub_download(str(release.repository), file.path, revision=commit, local_dir=staging))
    check_download(downloaded, listing[file.path])
    if file.is_pickle:
        from .convert import convert_pickle

        convert_pickle(downloaded, target, overwrite=True)
        downloaded.unlink()
    else:
        downloaded.replace(target)


def check_download(path: Path, expected: HubFile) -> None:
    """Raise WeightsError, and remove the file, when it is not what the hub said."""
    if expected.sha256:
        wanted: str | None = expected.sha256
        found = _digest(path, hashlib.sha256())
    else:
        wanted = expected.git_blob
        found = _digest(path, hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False))
    if found != wanted:
        path.unlink()
        raise WeightsError(
            f"checksum is {found}, the hub says {wanted}.", where=expected.path, way_out="The download was damaged: fetch it again."
        )


def _digest(path: Path, algorithm: hashlib._Hash) -> str:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            algorithm.update(chunk)
    return algorithm.hexdigest()


def _write_records(models: Path, records: dict[str, dict[str, object]]) -> None:
    with written_whole(records_path(models)) as temporary:
        temporary.write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _hub_errors(release: Release) -> Iterator[None]:
    """Everything that the hub's client raises, as an error that says what to do."""
    from huggingface_hub import errors

    where = str(release.repository)
    try:
        yield
    except errors.GatedRepoError as error:
        raise WeightsError(
            "asks for its licence to be accepted.", where=where, way_out=f"Accept it at {release.page}, then run `hf auth login`."
        ) from error
    except (errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise _unreachable(release, error) from error
        raise WeightsError(f"has no such revision or file: {_first_line(error)}", where=where, way_out=f"See {release.page}.") from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsError("is not on the hub any more.", where=where, way_out=f"See {release.page}.") from error
    except (OSError, errors.HTTPError, errors.XetDownloadError) as error:  # type: ignore[attr-defined]
        raise _unreachable(release, error) from error


def _unreachable(release: Release, error: Exception) -> KintsugiError:
    return WeightsError(
        f"cannot be fetched: {_first_line(error)}",
        where=str(release.repository),
        way_out="Check the network (and that HF_HUB_OFFLINE is not set), then run the same command again: it goes on where it stopped.",
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".") + "."
