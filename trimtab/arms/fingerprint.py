"""What a result depends on, defined once: rows whole, documents, settings, weights and the versions of what made them.

A training run, a study and each arm of it keep these as `depends.json` or in their records; going on is refused with what
differs, and an arm is measured anew when anything here has changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trimtab.arms.session import Session
from trimtab.arms.workspace import Workspace
from trimtab.base.config import RewardTable, TeacherTable
from trimtab.base.errors import InputError
from trimtab.base.files import sha256_cached, sha256_text
from trimtab.base.grammar import imitates_teacher, learns_from_rewards, method_of
from trimtab.base.machine import versions
from trimtab.base.records import Arm, Example
from trimtab.base.task import Task
from trimtab.model.catalog import resolve
from trimtab.model.checkpoint_files import changed_files, file_hashes, inside, weight_files

Fingerprint = Mapping[str, str]  # what it is, in words -> its value, or the hash of it

TRAINED_BY = ("task", "data", "base", "arm")  # the tables of the task file that weights depend on
# What decides which arms run and for how long (each arm's own share of it stands in its effort), what the task is called, and what a
# server keeps.
_NOT_SETTINGS: Any = {"study": {"arms", "budget"}, "task": {"name"}, "upkeep": True}
# Keys that came later, at the value that changes nothing.
_AS_IF_NOT_SET = {
    "data.canaries": "0",
    "data.mix": "{}",
    "labels.merge": "{}",
    "study.test_rows": '"all"',
    **{f"reward.{name}": "null" for name in RewardTable.model_fields},
    **{f"teacher.{name}": "null" for name in TeacherTable.model_fields},
}
_ASPECTS = {
    "rows": ("messages", "references"),
    "row weights": ("weight",),
    "groups": ("group",),
    "slices": ("slice",),
    "right passages of rows": ("passages",),
}
ROWS = (*_ASPECTS, "split of the rows")
_MODELS = {
    "base": "the base model",
    "embedding": "the embedding model",
    "reranker": "the re-ranking model",
    "reward": "the reward model",
    "teacher": "the teacher",
}
WEIGHTS = {name: f"weights of {model}" for name, model in _MODELS.items()}
# The hash of every file of a model that its answers depend on, as JSON. Earlier versions did not keep them: where they are
# absent nothing differs, and `digest_of`, which earlier versions' checkpoints and records hold, leaves them out.
FILES = {name: f"files of {model}" for name, model in _MODELS.items()}
_SHOWN = 3  # differences that a message names


def fingerprint_of(session: Session, arms: Sequence[Arm], tables: Sequence[str] = ()) -> dict[str, str]:
    """Everything that the results of these arms rest on, of the task file these tables or all; rewards and teacher where an arm learns from them.

    Weights that none of the arms uses are not asked for.
    """
    workspace, rewarded, taught = (
        session.workspace,
        any(map(learns_from_rewards, arms)),
        any(map(imitates_teacher, arms)),
    )
    more = [name for name, learnt_from in (("reward", rewarded), ("teacher", taught)) if learnt_from]
    named = (*tables, *more) if tables else tables
    found = {**fingerprint_rows(workspace), **task_settings(workspace.task, named)}
    if rewarded and workspace.task.reward.model is not None:
        scoring = workspace.folder / "runs" / workspace.task.reward.model.run / "adapter"
        found[WEIGHTS["reward"]] = sha256_text(*(sha256_cached(file) for file in sorted(scoring.glob("*.safetensors"))))
        found[FILES["reward"]] = _files_json(file_hashes(scoring))
    if taught:
        found |= _teacher_fingerprint(workspace.task)
    if any(method_of(arm).uses_base for arm in arms):
        found[WEIGHTS["base"]] = weights_digest(session.base_folder)
    if any(uses_embedding(arm) for arm in arms):
        found[WEIGHTS["embedding"]] = session.embedder.digest
    if any(arm.retrieves for arm in arms) and session.reranker is not None:
        found[WEIGHTS["reranker"]] = session.reranker.digest
    found |= {FILES[name]: _files_json(files) for name, files in model_files(session, arms).items()}
    return {**found, **{f"version of {name}": value for name, value in versions().items()}}


def model_files(session: Session, arms: Sequence[Arm]) -> dict[str, dict[str, str]]:
    """The hashes of the files of the models that these arms answer with: by `base`, `embedding` and `reranker`, then by name."""
    is_used = {
        "base": any(method_of(arm).uses_base for arm in arms),
        "embedding": any(uses_embedding(arm) for arm in arms),
        "reranker": any(arm.retrieves for arm in arms) and session.reranker is not None,
    }
    return {name: hashes_of(session, name) for name, is_asked in is_used.items() if is_asked}


def hashes_of(session: Session, model: str) -> dict[str, str]:
    """The hashes of the files of a session's `base`, `embedding` or `reranker`; none of a model that it does not have."""
    if model == "base":
        return file_hashes(session.base_folder)
    if model == "embedding":
        return file_hashes(session.embedder.folder, below=True)
    return file_hashes(session.reranker.folder, below=True) if model == "reranker" and session.reranker else {}


def files_in_words(model: str, changed: Sequence[str]) -> tuple[str, ...]:
    """Names of files of a model, as `changed_files` gives them, in words."""
    return tuple(
        f"{WEIGHTS[model]} ({name})" if ".safetensors" in name else f"{name} of {_MODELS[model]}" for name in changed
    )


def _teacher_fingerprint(task: Task) -> dict[str, str]:
    """The teacher: its weights, or where it answers and under which name."""
    table = task.teacher
    if table.api is not None:
        return {"teacher": f"{task.api[table.api].model} at {task.api[table.api].url}"}
    folder = resolve(table.model or "", table.revision, near=task.folder)
    return {WEIGHTS["teacher"]: weights_digest(folder), FILES["teacher"]: _files_json(file_hashes(folder))}


def fingerprint_rows(workspace: Workspace) -> dict[str, str]:
    """Hashes of the rows, aspect by aspect, of where each stands, and of the documents."""
    rows = [(split, example) for split in ("train", "dev", "test") for example in workspace.splits[split]]
    found = {
        what: sha256_text(*(json.dumps(_aspect(example, names), ensure_ascii=False) for _, example in rows))
        for what, names in _ASPECTS.items()
    }
    found["split of the rows"] = sha256_text(*(part for split, example in rows for part in (split, example.id)))
    if any(example.tests for _, example in rows):
        found["tests of rows"] = sha256_text(*(example.tests for _, example in rows))
    if any(example.time is not None for _, example in rows):
        found["times of rows"] = sha256_text(*(example.time or "" for _, example in rows))
    judged = [(split, one) for split in ("train", "dev", "test") for one in workspace.preferences[split]]
    if judged:
        found["judged answers"] = sha256_text(
            *(f"{split}:{json.dumps(asdict(one), ensure_ascii=False)}" for split, one in judged)
        )
    found["documents"] = sha256_text(*(f"{document.id}:{document.digest}" for document in workspace.documents))
    return found


def task_settings(task: Task, tables: Sequence[str] = ()) -> dict[str, str]:
    """The settings of these tables of the task file, or of all, as JSON by their dotted keys; comments and order do not count."""
    plain = task.model_dump(mode="json", exclude=_NOT_SETTINGS)
    flat = _flat("", {name: plain[name] for name in tables or plain})
    return {name: value for name, value in flat if _AS_IF_NOT_SET.get(name) != value}


def differences(then: Fingerprint, now: Fingerprint) -> tuple[str, ...]:
    """What is not the same any more, in words, settings with both values where they are short."""
    files = {name: _files_differing(name, then, now) for name in FILES}
    by_file = {WEIGHTS[name] for name, found in files.items() if found} | set(FILES.values())
    names = [name for name in dict.fromkeys((*then, *now)) if then.get(name) != now.get(name) and name not in by_file]
    return tuple(_describe_change(name, then.get(name), now.get(name)) for name in names) + sum(files.values(), ())


def _files_differing(model: str, then: Fingerprint, now: Fingerprint) -> tuple[str, ...]:
    """The files of a model that changed, in words; none where one side did not keep their hashes."""
    key = FILES[model]
    if key not in then or key not in now:
        return ()
    return files_in_words(model, changed_files(files_of(then[key]), files_of(now[key])))


def files_of(kept: str) -> dict[str, str]:
    """The hashes of a model's files by their names, as `depends_on` keeps them; none for a value that is damaged."""
    try:
        value = json.loads(kept)
    except (ValueError, TypeError):
        return {}
    return value if isinstance(value, dict) else {}


def _files_json(files: Mapping[str, str]) -> str:
    return json.dumps(files, sort_keys=True)


def require_unchanged(folder: Path, then: Fingerprint, now: Fingerprint, restart_command: str) -> None:
    """Raise InputError, with what differs, where work in `folder` cannot go on; `restart_command` is the command that starts over."""
    changed = differences(then, now)
    if changed:
        more = len(changed) - _SHOWN
        shown = ", ".join(changed[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
        raise InputError(
            f"changed since this was begun: {shown}",
            f"put back what was changed, or start anew with: {restart_command}",
            file=folder,
        )


def digest_of(depends: Fingerprint, *more: str) -> str:
    """SHA-256 of all of it but the hashes of single files (see FILES), and of `more`."""
    kept = {name: value for name, value in depends.items() if name not in FILES.values()}
    return sha256_text(json.dumps(kept, sort_keys=True, ensure_ascii=False), *more)


def uses_embedding(arm: Arm) -> bool:
    """Whether an arm asks the embedding model."""
    return arm.weights == "linear" or arm.retrieves or "nearest-shots" in arm.parts


def weights_digest(folder: Path) -> str:
    """The SHA-256 of a model's one file of weights, of the list of theirs where there are several; files are hashed once.

    Raises InputError for files that lie outside the folder.
    """
    beside = (inside(folder, file.name) for file in folder.glob("*.safetensors"))
    files = sorted({*weight_files(folder), *beside})
    found = [sha256_cached(file) for file in files]
    return found[0] if len(found) == 1 else sha256_text(*found)


def _aspect(example: Example, names: Iterable[str]) -> list[Any]:
    plain = asdict(example)
    return [plain[name] for name in names]


def _flat(before: str, value: Any) -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(f"{before}.{key}" if before else key, item)
    else:
        yield before, json.dumps(value, ensure_ascii=False)


def _describe_change(name: str, then: str | None, now: str | None) -> str:
    hashed = name in (*ROWS, "tests of rows", "judged answers", "documents", *WEIGHTS.values())
    sides = [side if side is not None else "not set" for side in (then, now)]
    if hashed or max(map(len, sides)) > 40:
        return name
    return f"{name} (was {sides[0]}, is {sides[1]})"
