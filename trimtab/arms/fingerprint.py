"""Fingerprint of a result: hashes of everything it depends on: rows, documents, settings, model weights, library
versions.

A training run, a study and each of its arms keep it in `depends.json` or in their records. Resuming is refused, with
the differences, if anything changed, and an arm is then measured again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trimtab.arms.session import Session
from trimtab.arms.trained_judges import trained_judge
from trimtab.arms.workspace import Workspace
from trimtab.base.config import RewardTable, TeacherTable
from trimtab.base.errors import InputError
from trimtab.base.files import TextHash, sha256_cached, sha256_text
from trimtab.base.grammar import PARTS, imitates_teacher, is_trained, learns_from_rewards, method_of
from trimtab.base.machine import versions
from trimtab.base.plugins import plugins
from trimtab.base.records import Arm
from trimtab.base.task import Task
from trimtab.data.ledger import SPLITS
from trimtab.model.catalog import resolve
from trimtab.model.model_files import changed_files, file_hashes, inside, weight_files

Fingerprint = Mapping[str, str]  # name of a dependency, in words -> its value, or its hash

TRAINED_BY = ("task", "data", "base", "arm")  # the tables of the task file that trained weights depend on
# Settings that results do not depend on: which arms run and for how long (each arm's share is in its effort), and the
# task's name; tables of plugins are left out, too.
_NOT_SETTINGS: Any = {"study": {"arms", "budget"}, "task": {"name"}}
# Keys of later versions, with the value that changes nothing.
_AS_IF_NOT_SET = {
    "data.canaries": "0",
    "judge": "null",
    "judge.against": "null",
    "judge.groundedness": "false",
    "data.mix": "{}",
    "labels.merge": "{}",
    "retrieval.store": '""',
    "study.test_rows": '"all"',
    **{f"reward.{name}": "null" for name in RewardTable.model_fields},
    **{f"teacher.{name}": "null" for name in TeacherTable.model_fields},
    "teacher.proposes": "false",
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
# Hashes of all model files that answers depend on, as JSON. They name the file that differs; `digest_of` leaves them
# out, since the hash of the weights covers them.
FILES = {name: f"files of {model}" for name, model in _MODELS.items()}
_SHOWN = 3  # maximum number of differences in a message


def fingerprint_of(session: Session, arms: Sequence[Arm], tables: Sequence[str] = ()) -> dict[str, str]:
    """Return the fingerprint of the results of these arms, with these `tables` of the task file, or all.

    Models that none of the arms uses are not read.
    """
    workspace = session.workspace
    rewarded = any(map(learns_from_rewards, arms))
    prompted = any(method_of(arm).uses_base and not is_trained(arm) for arm in arms)
    taught = any(map(imitates_teacher, arms)) or (workspace.task.teacher.proposes and prompted)
    judged = workspace.task.judge is not None
    used = (("reward", rewarded), ("teacher", taught), ("judge", judged))
    more = [name for name, is_used in used if is_used]
    named = (*tables, *more) if tables else tables
    found = {**fingerprint_rows(workspace), **task_settings(workspace.task, named)}
    if rewarded and workspace.task.reward.model is not None:
        scoring = workspace.folder / "runs" / workspace.task.reward.model.run / "adapter"
        found[WEIGHTS["reward"]] = sha256_text(*(sha256_cached(file) for file in sorted(scoring.glob("*.safetensors"))))
        found[FILES["reward"]] = _files_json(file_hashes(scoring))
    if judged:
        found["the judge"] = judge_version(workspace.task)
    if taught:
        found |= _teacher_fingerprint(workspace.task)
    if any(method_of(arm).uses_base for arm in arms):
        found[WEIGHTS["base"]] = weights_digest(session.base_folder)
    if any(uses_embedding(arm) for arm in arms):
        found[WEIGHTS["embedding"]] = session.retriever.embedder.digest
    learnt = workspace.training_rows("linear") if any(arm.weights == "linear" for arm in arms) else ()
    if len(learnt) > len(workspace.splits["train"]):
        found["training rows of linear"] = sha256_text(*(f"{row.input}\n{row.references[0]}" for row in learnt))
    if any(arm.retrieves for arm in arms) and session.retriever.reranker is not None:
        found[WEIGHTS["reranker"]] = session.retriever.reranker.digest
    found |= {FILES[name]: _files_json(files) for name, files in model_files(session, arms).items()}
    return {**found, **{f"version of {name}": value for name, value in versions().items()}}


def model_files(session: Session, arms: Sequence[Arm]) -> dict[str, dict[str, str]]:
    """Return the hashes of the files of the models that these arms use: by model, then by file name."""
    is_used = {
        "base": any(method_of(arm).uses_base for arm in arms),
        "embedding": any(uses_embedding(arm) for arm in arms),
        "reranker": any(arm.retrieves for arm in arms) and session.retriever.reranker is not None,
    }
    return {name: hashes_of(session, name) for name, is_asked in is_used.items() if is_asked}


def hashes_of(session: Session, model: str) -> dict[str, str]:
    """Return the file hashes of `base`, `embedding` or `reranker`; empty for a model that a session has not."""
    if model == "base":
        return file_hashes(session.base_folder)
    if model == "embedding":
        return file_hashes(session.retriever.embedder.folder, below=True)
    reranker = session.retriever.reranker if model == "reranker" else None
    return file_hashes(reranker.folder, below=True) if reranker else {}


def files_in_words(model: str, changed: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a model's changed files (from `changed_files`), in words."""
    return tuple(
        f"{WEIGHTS[model]} ({name})" if ".safetensors" in name else f"{name} of {_MODELS[model]}" for name in changed
    )


def judge_folder(task: Task) -> Path:
    """Return the folder of the local model that judges answers."""
    by = task.judge.by if task.judge is not None else "base"
    if by == "base":
        return resolve(task.base.model, task.base.revision, near=task.folder)
    return resolve(by, None, near=task.folder)


def judge_version(task: Task) -> str:
    """Return what pins the judge of a task: the model and address of an endpoint, the hash of a model's weights, or
    that of the files of an arm that was trained to judge."""
    trained = trained_judge(task)
    if trained is not None:
        return trained.version
    endpoint = task.judging_endpoint
    if endpoint is not None:
        return f"{task.api[endpoint].model} at {task.api[endpoint].url}"
    return f"weights {weights_digest(judge_folder(task))}"


def _teacher_fingerprint(task: Task) -> dict[str, str]:
    """Return the fingerprint of the teacher: its weights, or its address and model name."""
    table = task.teacher
    if table.api is not None:
        return {"teacher": f"{task.api[table.api].model} at {task.api[table.api].url}"}
    folder = resolve(table.model or "", table.revision, near=task.folder)
    return {WEIGHTS["teacher"]: weights_digest(folder), FILES["teacher"]: _files_json(file_hashes(folder))}


def fingerprint_rows(workspace: Workspace) -> dict[str, str]:
    """Return hashes of the rows by aspect, of their splits, and of the documents."""
    hashes = {what: TextHash() for what in (*_ASPECTS, "split of the rows", "tests of rows", "times of rows")}
    has_tests = has_times = False
    for split in SPLITS:
        for example in workspace.splits[split]:
            plain = asdict(example)
            for what, names in _ASPECTS.items():
                hashes[what].add(json.dumps([plain[name] for name in names], ensure_ascii=False))
            hashes["split of the rows"].add(split)
            hashes["split of the rows"].add(example.id)
            hashes["tests of rows"].add(example.tests)
            hashes["times of rows"].add(example.time or "")
            has_tests, has_times = has_tests or bool(example.tests), has_times or example.time is not None
    absent = {"tests of rows": not has_tests, "times of rows": not has_times}
    found = {what: digest.hexdigest() for what, digest in hashes.items() if not absent.get(what)}
    judged = [(split, one) for split in SPLITS for one in workspace.preferences[split]]
    if judged:
        found["judged answers"] = sha256_text(
            *(f"{split}:{json.dumps(asdict(one), ensure_ascii=False)}" for split, one in judged)
        )
    found["documents"] = sha256_text(*(f"{document.id}:{document.digest}" for document in workspace.documents))
    return found


def task_settings(task: Task, tables: Sequence[str] = ()) -> dict[str, str]:
    """Return the settings of these tables of the task file, or of all, as JSON by dotted keys."""
    plain = task.model_dump(mode="json", exclude={**_NOT_SETTINGS, **dict.fromkeys(plugins("tables"), True)})
    flat = _flat("", {name: plain[name] for name in tables or plain})
    return {name: value for name, value in flat if _AS_IF_NOT_SET.get(name) != value}


def differences(then: Fingerprint, now: Fingerprint) -> tuple[str, ...]:
    """Return the differences between two fingerprints in words, settings with both values if they are short."""
    files = {name: _files_differing(name, then, now) for name in FILES}
    by_file = {WEIGHTS[name] for name, found in files.items() if found} | set(FILES.values())
    names = [name for name in dict.fromkeys((*then, *now)) if then.get(name) != now.get(name) and name not in by_file]
    return tuple(_describe_change(name, then.get(name), now.get(name)) for name in names) + sum(files.values(), ())


def _files_differing(model: str, then: Fingerprint, now: Fingerprint) -> tuple[str, ...]:
    """Return the changed files of a model, in words; empty if one side has no file hashes."""
    key = FILES[model]
    if key not in then or key not in now:
        return ()
    return files_in_words(model, changed_files(files_of(then[key]), files_of(now[key])))


def files_of(kept: str) -> dict[str, str]:
    """Return a model's file hashes by name, from a fingerprint's JSON; empty for a damaged value."""
    try:
        value = json.loads(kept)
    except (ValueError, TypeError):
        return {}
    return value if isinstance(value, dict) else {}


def _files_json(files: Mapping[str, str]) -> str:
    return json.dumps(files, sort_keys=True)


def require_unchanged(folder: Path, then: Fingerprint, now: Fingerprint, restart_command: str) -> None:
    """Raise InputError, with the differences, if work in `folder` cannot be resumed."""
    changed = differences(then, now)
    if changed:
        more = len(changed) - _SHOWN
        shown = ", ".join(changed[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
        raise InputError(
            f"changed since this was begun: {shown}",
            f"restore what was changed, or start again with: {restart_command}",
            file=folder,
        )


def digest_of(depends: Fingerprint, *more: str) -> str:
    """Return the SHA-256 of a fingerprint without the hashes of single files (see FILES), and of `more`."""
    kept = {name: value for name, value in depends.items() if name not in FILES.values()}
    return sha256_text(json.dumps(kept, sort_keys=True, ensure_ascii=False), *more)


def uses_embedding(arm: Arm) -> bool:
    """True if an arm uses the embedding model."""
    return arm.weights == "linear" or arm.retrieves or any(PARTS[part].embeds for part in arm.parts)


def weights_digest(folder: Path) -> str:
    """Return the SHA-256 of a model's weights file; of the list of hashes if there are several files.

    Raises InputError for files outside the folder.
    """
    beside = (inside(folder, file.name) for file in folder.glob("*.safetensors"))
    files = sorted({*weight_files(folder), *beside})
    found = [sha256_cached(file) for file in files]
    return found[0] if len(found) == 1 else sha256_text(*found)


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
