"""`trimtab.toml`: the task file, validated before anything is loaded."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trimtab.base.errors import InputError, MissingError
from trimtab.base.records import Arm, Kind

METRICS: Mapping[str, tuple[str, ...]] = {
    "classify": ("accuracy", "macro_f1"),
    "answer": ("exact_match", "token_f1"),
    "generate": ("exact_match", "rouge_l", "chrf", "scorer"),
}
METHODS = ("lora", "freeze", "full")
STAGES = ("docs", "sft")
CONTEXTS = ("prompt", "few-shot", "nearest-shots", "rag")
COLUMNS = ("input", "output", "label", "id", "group", "slice", "weight", "source", "licence", "passage")
ARM_NAME = re.compile(r"[a-z0-9-]+")
TASK_FILE = "trimtab.toml"


class Settings(BaseModel):
    """Base of every table: frozen, and an unknown key is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskTable(Settings):
    """What is asked of the model."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="Name of the task.")
    kind: Kind = Field(
        description="classify: one of a closed set; answer: short, checked against references, may abstain; generate: free text or code."
    )
    instruction: str = Field("", description="The instruction, sent as the system message.")
    metric: str = Field("", description="Default: accuracy, token_f1 or rouge_l, by kind.")
    unknown: str = Field("I don't know", description="What abstaining looks like.")
    labels: tuple[str, ...] = Field((), description="classify: read from the data when empty.")
    output_tokens: int | None = Field(
        None, ge=1, le=8192, description="Longest answer; default: the longest reference plus a margin."
    )
    format: str = Field("", description="A regular expression, or a JSON schema file, that every answer should fit.")
    scorer: tuple[str, ...] = Field((), description="argv of a program that scores answers.")


class SplitTable(Settings):
    """Shares of the examples that are held out."""

    dev: float = Field(0.15, gt=0, lt=1)
    test: float = Field(0.25, gt=0, lt=1)
    seed: int = 0

    @model_validator(mode="after")
    def _leaves_train(self) -> SplitTable:
        if self.dev + self.test >= 1:
            raise ValueError("dev and test together must leave a share for training")
        return self


class DataTable(Settings):
    """Where examples and documents come from."""

    examples: tuple[str, ...] = Field((), description="Files, globs, or a Hugging Face dataset id.")
    test: tuple[str, ...] = Field((), description="Files that are the test set as they are.")
    documents: tuple[str, ...] = Field((), description="Files or folders: md, txt, html, pdf (or SQuAD JSON).")
    preferences: tuple[str, ...] = ()
    columns: Mapping[str, str] = Field(default_factory=dict, description="Only what cannot be inferred.")
    layout: str = Field("", description="Name of the row layout, when it cannot be detected.")
    encoding: str = "utf-8"
    group: str = Field("", description="A column whose rows never stand on both sides of a split.")
    slice: str = Field("", description="A column whose values get scores of their own.")
    split: SplitTable = SplitTable()
    leakage: Literal["stop", "report"] = "stop"
    train_on: Literal["all", "last"] = "all"

    @model_validator(mode="after")
    def _known_columns(self) -> DataTable:
        for name in self.columns:
            if name not in COLUMNS:
                raise ValueError(f"columns.{name} is not a column role; use one of: {', '.join(COLUMNS)}")
        return self


class BaseTable(Settings):
    """The pretrained models."""

    model: str
    revision: str | None = None
    embedding: str = "minilm-l6"
    precision: Literal["auto", "bf16", "fp32"] = "auto"


class TargetTable(Settings):
    """What is good enough."""

    quality: float | None = Field(None, gt=0, le=1)
    margin: float = Field(0.02, ge=0, lt=1)
    latency_p95_ms: float | None = Field(None, gt=0)


class StudyTable(Settings):
    """What is compared, and how long it may take."""

    arms: tuple[str, ...] = ()
    seeds: int = Field(1, ge=1, le=20)
    budget: str = Field("", pattern=r"^(\d+(\.\d+)?[smh])?$", description="30m, 2h, 90s; empty: no limit.")

    @property
    def budget_seconds(self) -> float | None:
        """The budget in seconds, or None when there is none."""
        return float(self.budget[:-1]) * {"s": 1, "m": 60, "h": 3600}[self.budget[-1]] if self.budget else None


class ArmTable(Settings):
    """A variant of one's own: a method, its stages, a context, and the settings that differ from the defaults."""

    weights: Literal["base", "lora", "freeze", "full"] = "base"
    stages: tuple[Literal["docs", "sft"], ...] = ("sft",)
    context: Literal["prompt", "few-shot", "nearest-shots", "rag"] = "prompt"
    rank: int | None = Field(None, ge=1, le=1024)
    learning_rate: float | None = Field(None, gt=0, lt=1)
    epochs: float | None = Field(None, gt=0, le=1000)
    batch: int | None = Field(None, ge=1, le=65536, description="Examples of one optimizer step.")
    layers: int | None = Field(None, ge=1, description="freeze: how many of the last layers are trained.")
    shots: int | None = Field(None, ge=1, le=64)
    passages: int | None = Field(None, ge=1, le=64)


class TokenPrice(Settings):
    """Price of a million tokens at an endpoint."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    as_of: date
    source: str


class ApiTable(Settings):
    """An OpenAI-compatible endpoint, measured as the arm `api-NAME`."""

    url: str = Field(pattern=r"^https?://\S+$")
    model: str
    key_env: str | None = None
    price_per_million: TokenPrice | None = None


class HourPrice(Settings):
    """Price of a machine for one hour."""

    price: float = Field(ge=0)
    as_of: date
    source: str


class ChangeTable(Settings):
    """How fast the facts change."""

    share: float = Field(ge=0, le=1)
    per_month: float = Field(ge=0)
    lead_days: float = Field(ge=0)


class CostTable(Settings):
    """Prices and volumes; everything here is the user's own."""

    currency: str = "USD"
    machine_hour: HourPrice | None = None
    hosting: Literal["always-on", "on-demand"] = "always-on"
    utilisation: float = Field(0.6, gt=0, le=1)
    questions_per_month: float = Field(10_000, ge=0)
    horizon_months: float = Field(12, gt=0)
    change: ChangeTable | None = None


class Task(Settings):
    """A whole task file. `folder` is where it lies: paths in it are relative to that."""

    task: TaskTable
    data: DataTable
    base: BaseTable
    target: TargetTable = TargetTable()
    study: StudyTable = StudyTable()
    arm: Mapping[str, ArmTable] = Field(default_factory=dict)
    api: Mapping[str, ApiTable] = Field(default_factory=dict)
    cost: CostTable = CostTable()
    file: Path = Field(Path(TASK_FILE), exclude=True)

    @property
    def folder(self) -> Path:
        """Where the task file lies."""
        return self.file.parent

    @property
    def metric(self) -> str:
        """The metric, the kind's default when none is named."""
        return self.task.metric or {"classify": "accuracy", "answer": "token_f1", "generate": "rouge_l"}[self.task.kind]

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The arms to compare: those named, or every one that the data allows."""
        names = self.study.arms or default_arms(self)
        return tuple(parse_arm(name, self) for name in names)


def default_arms(task: Task) -> tuple[str, ...]:
    """Arms for a task file that names none."""
    arms = ["linear"] if task.task.kind == "classify" else []
    if task.data.examples or not task.data.documents:
        arms += ["prompt", "few-shot", "lora"]
    if task.data.documents:
        arms += ["rag"] + (["lora+rag"] if task.data.examples else [])
    return (*arms, *task.arm, *(f"api-{name}" for name in task.api))


def parse_arm(name: str, task: Task) -> Arm:
    """The arm that `name` stands for: `[arm.NAME]`, `api-NAME`, `linear`, a context, or `method[-stages][+context]`.

    Raises InputError when the name is not in the grammar, or the arm cannot run on this task.
    """
    where: dict[str, Any] = {"file": task.file, "field": "study.arms"}
    if name in task.arm:
        own = task.arm[name]
        chosen = own.model_dump(exclude={"weights", "stages", "context"}, exclude_none=True)
        arm = Arm(
            name=name,
            weights=own.weights,
            stages=own.stages if own.weights != "base" else (),
            context=own.context,
            settings=chosen,
        )
    elif name.startswith("api-"):
        if name[4:] not in task.api:
            raise InputError(
                f"arm {name} has no [api.{name[4:]}] table", f"add [api.{name[4:]}] with url and model", **where
            )
        arm = Arm(name=name, weights="api", stages=(), context="prompt")
    elif name == "linear":
        arm = Arm(name=name, weights="linear", stages=(), context="prompt")
    elif name in CONTEXTS:
        arm = Arm(name=name, weights="base", stages=(), context=name)
    else:
        arm = _parse_blend(name, where, task)
    _check_arm(arm, task, where)
    return arm


def _parse_blend(name: str, where: dict[str, Any], task: Task) -> Arm:
    weights, _, context = name.partition("+")
    method, *stages = weights.split("-")
    known = [
        *CONTEXTS,
        *METHODS,
        "lora-docs",
        "linear",
        "lora+rag",
        "lora+few-shot",
        *task.arm,
        *(f"api-{key}" for key in task.api),
    ]
    if method not in METHODS or (context or "prompt") not in CONTEXTS or not set(stages) <= {"docs"} or len(stages) > 1:
        raise InputError(
            f"unknown arm {name!r}",
            _nearest(name, known, "use a method (lora, freeze, full), -docs, and + a context"),
            **where,
        )
    return Arm(name=name, weights=method, stages=(*stages, "sft"), context=context or "prompt")


def _check_arm(arm: Arm, task: Task, where: dict[str, Any]) -> None:
    if not task.data.documents and (arm.context == "rag" or "docs" in arm.stages):
        raise InputError(
            f"arm {arm.name} needs documents and there are none", "set data.documents, or leave the arm out", **where
        )
    if arm.weights == "linear" and task.task.kind != "classify":
        raise InputError("arm linear is for tasks of kind classify", "leave it out", **where)
    needs_examples = arm.weights not in ("base", "api") or arm.context in ("few-shot", "nearest-shots")
    if needs_examples and not task.data.examples:
        raise InputError(
            f"arm {arm.name} needs examples and there are none", "set data.examples, or leave the arm out", **where
        )


def load_task(path: Path | str = TASK_FILE) -> Task:
    """Read and validate a task file; a folder stands for the `trimtab.toml` in it.

    Raises MissingError when there is none, InputError with the key at fault otherwise.
    """
    file = Path(path)
    if file.is_dir():
        file = file / TASK_FILE
    if not file.is_file():
        raise MissingError(f"{file}: no task file; write one with: trimtab init")
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"not valid TOML ({error})", "mend the line it names", file=file) from None
    try:
        task = Task(**{**raw, "file": file})
    except ValidationError as error:
        raise _as_input_error(error, file) from None
    check_task(task)
    return task


def with_budget(task: Task, budget: str) -> Task:
    """The task with another time budget; raises InputError for one that is not a time such as 90s, 30m or 2h."""
    try:
        table = StudyTable(**{**task.study.model_dump(), "budget": budget})
    except ValidationError as error:
        raise InputError(f"{budget!r} is not a time", "write it as 90s, 30m or 2h", field="budget") from error
    return task.model_copy(update={"study": table})


def check_task(task: Task) -> None:
    """Refuse what can be seen to be wrong before anything is loaded: metric and kind, paths, arms, labels."""
    file, kind = task.file, task.task.kind
    if task.metric not in METRICS[kind]:
        raise InputError(
            f"metric {task.metric!r} does not fit kind {kind!r}",
            f"use one of: {', '.join(METRICS[kind])}",
            file=file,
            field="task.metric",
        )
    if (task.metric == "scorer") != bool(task.task.scorer):
        raise InputError(
            'metric = "scorer" and scorer = [...] go together', "set both or neither", file=file, field="task.scorer"
        )
    if not task.data.examples and not task.data.documents:
        raise InputError("no examples and no documents", "set data.examples or data.documents", file=file, field="data")
    for key in ("examples", "test", "documents", "preferences"):
        for pattern in getattr(task.data, key):
            _check_path(task, key, pattern)
    for name in (*task.arm, *task.api):
        if not ARM_NAME.fullmatch(name):
            raise InputError(
                f"name {name!r} has other characters than a-z, 0-9 and -", "rename it", file=file, field="arm"
            )
    for name in task.arm:
        parse_arm(name, task)
    names = [arm.name for arm in task.arms]
    if len(set(names)) < len(names):
        raise InputError("an arm is named twice", "name each once", file=file, field="study.arms")


def _check_path(task: Task, key: str, pattern: str) -> None:
    if (task.folder / pattern).exists() or any(task.folder.glob(pattern) if not Path(pattern).is_absolute() else ()):
        return
    if key in ("examples", "test") and re.fullmatch(r"[\w.-]+/[\w.-]+", pattern) and not Path(pattern).suffix:
        return  # a Hugging Face dataset id
    near = difflib.get_close_matches(Path(pattern).name, [item.name for item in task.folder.iterdir()], n=1)
    hint = (
        f"did you mean {near[0]}? paths are relative to the task file"
        if near
        else "paths are relative to the task file"
    )
    raise InputError(f"{pattern} does not exist", hint, file=task.file, field=f"data.{key}")


def _nearest(name: str, known: list[str], otherwise: str) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else otherwise


def _as_input_error(error: ValidationError, file: Path) -> InputError:
    """The first problem of a ValidationError as one line, an unknown key with the nearest known one."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        *tables, key = [str(part) for part in first["loc"]]
        remedy = _nearest(key, sorted(_known_keys(tables)), f"known keys: {', '.join(sorted(_known_keys(tables)))}")
        return InputError("unknown key", remedy, file=file, field=place)
    if first["type"] == "missing":
        return InputError("required key is missing", "set it", file=file, field=place)
    message = first["msg"].removeprefix("Value error, ")
    return InputError(f"{message} (found {first['input']!r})", "mend the value", file=file, field=place)


def _known_keys(tables: list[str]) -> set[str]:
    model: type[BaseModel] = Task
    for name in tables:
        if name not in model.model_fields:
            continue  # the NAME of [arm.NAME]
        candidates = [model.model_fields[name].annotation, *get_args(model.model_fields[name].annotation)]
        for candidate in candidates:
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                model = candidate
    return set(model.model_fields) - {"file"}
