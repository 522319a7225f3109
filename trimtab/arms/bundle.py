"""Bundles: an arm as a folder with weights, index, documents, shots and instruction, loadable without its task file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trimtab.arms.answerers import CALIBRATION_FILE
from trimtab.arms.artifacts import NOTHING
from trimtab.arms.contexts import Context, PromptBuilder, has_fixed_shots, require_chosen
from trimtab.arms.fingerprint import WEIGHTS, files_in_words, hashes_of, model_files, uses_embedding
from trimtab.arms.session import Session
from trimtab.arms.store import SavedArm, StoredQuestion
from trimtab.arms.workspace import Workspace
from trimtab.base.codec import read_record, read_record_if_any, to_plain, write_record
from trimtab.base.config import BaseTable, CostTable, DataTable, TaskTable
from trimtab.base.errors import InputError, MissingError
from trimtab.base.files import refuse_links
from trimtab.base.grammar import is_trained, method_of
from trimtab.base.records import Arm, Document, Example, Hit, Kind, Message, Passage
from trimtab.base.results import ArmResult, Volume
from trimtab.base.sanitize import printable, visible
from trimtab.base.task import TASK_FILE, Task, require_sound_arm
from trimtab.data.prompts import Shot, build_prompt
from trimtab.exports.hf import set_base_name
from trimtab.exports.signing import verify_folder
from trimtab.model.load import Base
from trimtab.model.model_files import changed_files
from trimtab.training.linear import HIDDEN, load_linear

BUNDLE_FILE, QUESTIONS_FILE = "bundle.json", "questions.json"
DOCUMENTS_FILE, SHOTS_FILE = "documents.json", "shots.json"
RUN = "run"  # contains `adapter/` and `calibration.json`, like the folder of a training run
# Of a stranger's bundle: letters of a name, the largest figure, the smallest volume that costs are divided by, and the
# parts of a result whose figures may be negative, and those that are at most 1.
LONGEST_NAME, MOST_FIGURE, LEAST_QUESTIONS = 200, 1e15, 1e-3
SIGNED = frozenset({"extras", "abstention", "chosen", "effort", "learning", "exposure", "eight_bit"})
SHARES = ("score_floor", "p_target", "format_ok", "processor_share")
QUESTION, PASSAGE = "{question}", "{passage}"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """`bundle.json`: how a question becomes a prompt. `prompt`: its turns, with placeholders.

    `id`: the run or study that made the arm. `result`: its measurement by a study. `volume`: the number of questions
    its cost is for. `precision`: as measured. `files`: the hash of every file of its models (`base`, `embedding`,
    `reranker`).
    """

    id: str
    arm: Arm
    result: ArmResult | None
    precision: str
    chosen: Mapping[str, float | int | str]
    task: str
    kind: Kind
    instruction: str
    unknown: str
    labels: tuple[str, ...]
    output_tokens: int
    model: str
    revision: str | None
    embedding: str
    embedding_digest: str | None
    reranker: str | None
    prompt: tuple[Message, ...]
    files: Mapping[str, Mapping[str, str]]
    volume: Volume | None = None


@dataclass(frozen=True, kw_only=True)
class BundledDocuments:
    """`documents.json`: the documents of the index."""

    documents: tuple[Document, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BundledShots:
    """`shots.json`: the fixed few-shot examples, or the pool of the nearest ones."""

    shots: tuple[Example, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StoredQuestions:
    """`questions.json`: test questions and the answers of the arm as measured."""

    questions: tuple[StoredQuestion, ...]


@dataclass(frozen=True, kw_only=True)
class BundledArm:
    """An arm loaded from its bundle. `stored`: questions to verify it with."""

    arm: Arm
    session: Session
    saved: SavedArm
    stored: tuple[StoredQuestion, ...]


def write_bundle(
    session: Session,
    arm: Arm,
    context: Context,
    builder: PromptBuilder,
    folder: Path,
    *,
    saved: SavedArm | None = None,
    stored: Sequence[StoredQuestion] = (),
) -> None:
    """Write everything that an arm answers with; of the rows only its shots, or their pool, and `stored`."""
    task = session.task
    near = session.workspace.splits["train"] if context.shot_kind and not has_fixed_shots(context) else ()
    shots = tuple(replace(shot, file="", line=0) for shot in (*builder.fixed, *near))
    searched = {"vector_weight": task.retrieval.vector_weight} if context.passages else {}
    embeds = uses_embedding(arm) or not method_of(arm).uses_base
    bundle = Bundle(
        id=saved.id if saved else "unmeasured",
        arm=arm,
        result=saved.result if saved else None,
        volume=saved.volume if saved else None,
        precision=session.precision,
        chosen={**searched, **context.chosen()},
        task=task.task.name,
        kind=task.task.kind,
        instruction=task.task.instruction,
        unknown=task.task.unknown,
        labels=session.workspace.labels if task.task.kind == "classify" else (),
        output_tokens=session.output_tokens,
        model=task.base.model,
        revision=task.base.revision,
        embedding=task.base.embedding,
        embedding_digest=session.retriever.embedder.digest if embeds else None,
        reranker=task.base.reranker if arm.retrieves and context.rerank else None,
        files=_files_of_models(session, arm, context, saved),
        prompt=prompt_shape(builder.instruction, [(shot.input, shot.references[0]) for shot in builder.fixed], context),
    )
    write_record(folder / BUNDLE_FILE, bundle)
    write_record(folder / QUESTIONS_FILE, StoredQuestions(questions=tuple(stored)))
    if shots:
        write_record(folder / SHOTS_FILE, BundledShots(shots=shots))
    if context.passages or context.shot_passages:
        write_record(folder / DOCUMENTS_FILE, BundledDocuments(documents=session.workspace.documents))
        home = folder / session.retriever.index_folder(context.words).name
        home.mkdir()
        session.retriever.index_of(context.words).copy_to(home)
    (folder / RUN).mkdir()
    if saved and is_trained(arm):
        shutil.copytree(saved.folder / "adapter", folder / RUN / "adapter")
        set_base_name(folder / RUN / "adapter", task.base.model, task.base.revision)
    if saved and (saved.folder / CALIBRATION_FILE).is_file():
        shutil.copyfile(saved.folder / CALIBRATION_FILE, folder / RUN / CALIBRATION_FILE)


def open_bundle(
    folder: Path, *, signed_by: Path | None = None, near: Path | None = None, base: Base | None = None
) -> BundledArm:
    """Load an arm from its bundle.

    `signed_by`: the public key that must have signed it, verified before anything is read. `near`: the folder that
    relative model names start from (default: the bundle). `base`: a base model that is already loaded. Raises
    MissingError without a bundle; InputError for one that is damaged, contains links, fails its signature, or was
    made with other model files than this machine's.
    """
    if not (folder / BUNDLE_FILE).is_file():
        raise MissingError(f"{folder}: no bundle; make one with: trimtab export ARM --format bundle --out FOLDER")
    refuse_links(folder)
    if signed_by is not None:
        verify_folder(folder, signed_by)
    bundle = read_record(folder / BUNDLE_FILE, Bundle)
    if bundle.arm.endpoint:  # endpoints are never exported, and a foreign bundle must not send questions anywhere
        raise InputError("names an endpoint, which no bundle holds", "export it again", file=folder / BUNDLE_FILE)
    _require_sound(bundle, folder / BUNDLE_FILE)
    stored = read_record(folder / QUESTIONS_FILE, StoredQuestions).questions
    session = Session(_workspace(bundle, folder, stored, near or folder), bundle.precision, base=base)
    session.shots = session.workspace.splits["train"]
    if bundle.embedding_digest and bundle.embedding_digest != session.retriever.embedder.digest:
        problem = f"its index was made with other weights of {bundle.embedding}"
        raise InputError(problem, "bring those, or export it again", file=folder / BUNDLE_FILE)
    _require_same_models(session, bundle, folder / BUNDLE_FILE)
    saved = SavedArm(
        id=bundle.id,
        folder=folder / RUN,
        chosen=bundle.chosen,
        trained=NOTHING,
        result=bundle.result,
        volume=bundle.volume,
    )
    return BundledArm(arm=bundle.arm, session=session, saved=saved, stored=stored)


def named_bundle(folder: Path | None, signed_by: Path | None, *others: object) -> BundledArm | None:
    """Return the arm of a bundle if one is given, else None.

    Raises as `open_bundle`, and InputError for an arm or a run given beside a bundle, or a key without one.
    """
    if folder is None:
        if signed_by is not None:
            raise InputError("a key, and no bundle that it signed", "name it with --bundle", field="--signed-by")
        return None
    if any(others):
        raise InputError("a bundle is one arm", "leave out the arm and the run", field="--bundle")
    return open_bundle(folder, signed_by=signed_by)


def _files_of_models(session: Session, arm: Arm, context: Context, saved: SavedArm | None) -> dict[str, dict[str, str]]:
    """Return the hash of every file of the models that the arm uses."""
    files = model_files(session, [arm])
    if not context.rerank:
        files.pop("reranker", None)
    if arm.weights == "linear" and saved and load_linear(saved.folder / "adapter").choice.features == HIDDEN:
        files["base"] = hashes_of(session, "base")
    return files


def _require_sound(bundle: Bundle, file: Path) -> None:
    """Raise InputError for values that no export writes: a foreign bundle may contain any."""
    try:
        require_sound_arm(bundle.arm)
        require_chosen(bundle.chosen)
        for name, text in (("id", bundle.id), ("arm.name", bundle.arm.name)):
            if not text.isprintable() or not 0 < len(text) <= LONGEST_NAME:
                raise ValueError(f"{name} is {text[:40]!r}")
        if bundle.result is not None:
            _require_figures(bundle.result, bundle.arm.name)
        if bundle.volume is not None:
            CostTable(
                questions_per_month=bundle.volume.questions_per_month, horizon_months=bundle.volume.horizon_months
            )
            if 0 < bundle.volume.questions < LEAST_QUESTIONS:
                raise ValueError(f"volume is {bundle.volume.questions} questions")
        if bundle.kind == "classify" and not bundle.labels:
            raise ValueError("a classifier without labels")
    except ValueError as error:
        raise _damaged(error, file) from None


def _require_figures(result: ArmResult, arm: str) -> None:
    """Raise ValueError for measured figures that no study writes, such as a score outside of its interval."""
    if result.arm != arm:
        raise ValueError(f"result is that of {result.arm[:40]!r}")
    plain = to_plain(result)
    for path, value in _figures(plain):
        if abs(value) > MOST_FIGURE or (value < 0 and path[0] not in SIGNED):
            raise ValueError(f"result.{'.'.join(path)} is {value:g}")
    estimates = [("score", result.score), *((f"slices.{name}", score) for name, score in result.slices.items())]
    for name, score in estimates:
        if score is not None and not 0 <= score.low <= score.value <= score.high <= 1:
            raise ValueError(f"result.{name} is {score.value:g} in {score.low:g} to {score.high:g}")
    shares = {name: getattr(result, name) for name in SHARES} | {"seed_scores": max(result.seed_scores, default=0.0)}
    above = next((name for name, share in shares.items() if share is not None and share > 1), None)
    if above is not None:
        raise ValueError(f"result.{above} is {shares[above]:g}")
    if result.cost is not None and not (result.cost.currency.isprintable() and len(result.cost.currency) < 100):
        raise ValueError(f"result.cost.currency is {result.cost.currency[:40]!r}")


def _figures(plain: Any, *path: str) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yield every number of a JSON value with the keys that lead to it."""
    if isinstance(plain, int | float):
        yield path, plain
    elif isinstance(plain, Mapping):
        for key, value in plain.items():
            yield from _figures(value, *path, str(key)[:40])
    elif isinstance(plain, Sequence) and not isinstance(plain, str):
        for number, value in enumerate(plain):
            yield from _figures(value, *path, str(number))


def _damaged(error: ValueError, file: Path) -> InputError:
    """Return the error, in one line, for a damaged value: pydantic's first finding."""
    problem = str(error)
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        problem = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg'].lower()}"
    return InputError(
        f"is damaged ({printable(problem)})", "get it again from whoever made it, or export it again", file=file
    )


def _require_same_models(session: Session, bundle: Bundle, file: Path) -> None:
    """Raise InputError if a model on this machine is not the one that the bundle was made with."""
    for model, then in bundle.files.items():
        if model not in WEIGHTS:
            raise InputError(f"names files of an unknown model {model[:40]!r}", "export it again", file=file)
        changed = files_in_words(model, changed_files(then, hashes_of(session, model)))
        if changed:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise InputError(
                f"was made with another {visible(changed[0][:200])}{more} than this machine has",
                "copy the folder of that model from where the bundle was made, or export the bundle again",
                file=file,
            )


def _workspace(bundle: Bundle, folder: Path, stored: Sequence[StoredQuestion], near: Path) -> Workspace:
    """Return the workspace of a bundle: shots as training rows, stored questions as dev rows for sample prompts."""
    shots = (read_record_if_any(folder / SHOTS_FILE, BundledShots) or BundledShots()).shots
    documents = (read_record_if_any(folder / DOCUMENTS_FILE, BundledDocuments) or BundledDocuments()).documents
    if not all(row.messages for row in stored) or not all(shot.messages and shot.references for shot in shots):
        raise _damaged(ValueError(f"a row of {SHOTS_FILE} or {QUESTIONS_FILE} is empty"), folder)
    asked = tuple(Example(id=str(n), messages=row.messages, references=()) for n, row in enumerate(stored))
    try:
        task = _task(bundle, near)
    except ValidationError as error:
        raise _damaged(error, folder / BUNDLE_FILE) from None
    return Workspace(task=task, folder=folder, splits={"train": shots, "dev": asked, "test": ()}, documents=documents)


def _task(bundle: Bundle, near: Path) -> Task:
    """Return the task of a bundle. Raises ValidationError for values that no task file may have."""
    return Task(
        task=TaskTable(
            name=bundle.task,
            kind=bundle.kind,
            instruction=bundle.instruction,
            unknown=bundle.unknown,
            labels=bundle.labels,
            output_tokens=bundle.output_tokens,
        ),
        data=DataTable(),
        base=BaseTable.model_validate(
            {name: getattr(bundle, name) for name in ("model", "revision", "embedding", "reranker", "precision")}
        ),
        file=near / TASK_FILE,
    )


def prompt_shape(instruction: str, shots: Sequence[Shot], context: Context) -> tuple[Message, ...]:
    """Return the turns of a prompt with placeholders for question and passages; with shots only if they are fixed."""
    passages = [
        Passage(id="", document="", title=f"{{title {rank}}}", path=(), text=f"{PASSAGE[:-1]} {rank}}}", source="")
        for rank in range(1, context.passages + 1)
    ]
    hits = [Hit(passage=passage, rank=rank, score=0.0) for rank, passage in enumerate(passages, 1)]
    asked = Example(id="", messages=(Message(role="user", content=QUESTION),), references=())
    return build_prompt(asked, instruction, shots, hits).messages
