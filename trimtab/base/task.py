"""Task file (`trimtab.toml`): loading and validation before any data or model is loaded."""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from trimtab.base.config import (
    ApiTable,
    ArmTable,
    BaseTable,
    CostTable,
    DataTable,
    JudgeTable,
    LabelsTable,
    RetrievalTable,
    RewardTable,
    Settings,
    StudyTable,
    TargetTable,
    TaskTable,
    TeacherTable,
    amount_of,
)
from trimtab.base.errors import InputError, MissingError
from trimtab.base.files import is_dataset_id, matching, read_own_lines, split_sheet
from trimtab.base.grammar import (
    HEAD,
    JUDGED,
    REWARD,
    arm_from_name,
    imitates_teacher,
    is_grammar_name,
    is_trained,
    learns_from_rewards,
    method_of,
    nearest_name,
    require_arm,
    shots_of,
)
from trimtab.base.metrics import default_metric, find_metric, metrics_of
from trimtab.base.plugins import call_plugins, failed_plugins, plugins, refuse_plugin
from trimtab.base.records import Arm
from trimtab.base.sanitize import printable
from trimtab.base.validation_errors import as_input_error

ARM_NAME = re.compile(r"[a-z0-9-]+")
LONGEST_NAME = 64
LEAST_ROWS = 10  # rows of a sample
TASK_FILE = "trimtab.toml"
SECONDS = {"s": 1, "m": 60, "h": 3600}
DRAFTED_QUESTIONS = "drafted-questions.jsonl"  # beside the task file; written by `trimtab questions`
DRAFTED = "drafted"  # the slice of questions that nobody asked
APPROVED = ("approved", "mended")  # states of a drafted question that make it a row


PluginTable = TypeVar("PluginTable", bound=Settings)

AT_RUN_TIME = ("file", "rows")  # fields of a task that are in no file


class Task(Settings, defer_build=True):  # built once the tables of plugins are added
    """A validated task file. `folder`: where the file lies; paths in it are relative to that.

    Tables that plugins add (`base/plugins.py`) are fields too, None where the file has none; `table` returns one.
    """

    task: TaskTable
    data: DataTable
    labels: LabelsTable = LabelsTable()
    base: BaseTable = BaseTable()
    retrieval: RetrievalTable = RetrievalTable()
    target: TargetTable = TargetTable()
    reward: RewardTable = RewardTable()
    judge: JudgeTable | None = None
    teacher: TeacherTable = TeacherTable()
    study: StudyTable = StudyTable()
    arm: Mapping[str, ArmTable] = Field(default_factory=dict)
    api: Mapping[str, ApiTable] = Field(default_factory=dict)
    cost: CostTable = CostTable()
    file: Path = Field(Path(TASK_FILE), exclude=True)
    rows: int | None = Field(None, exclude=True)  # from the command line: the number of rows in a sample of all splits

    @model_validator(mode="before")
    @classmethod
    def _default_name(cls, tables: dict[str, Any]) -> dict[str, Any]:
        """Name a task without a name after its folder."""
        own = tables.get("task")
        if not isinstance(own, dict) or "name" in own:
            return tables
        name = name_after(Path(tables.get("file", TASK_FILE)).parent)
        return {**tables, "task": {**own, "name": name}}

    @model_validator(mode="before")
    @classmethod
    def _expand_arm_tables(cls, tables: dict[str, Any]) -> dict[str, Any]:
        """Complete each `[arm.NAME]` table whose name is of the grammar with what the name says."""
        own = tables.get("arm")
        if not isinstance(own, dict):
            return tables
        return {**tables, "arm": dict(_expanded_arm_table(name, table) for name, table in own.items())}

    @property
    def folder(self) -> Path:
        """Return the folder of the task file."""
        return self.file.parent

    def table(self, kind: type[PluginTable]) -> PluginTable | None:
        """Return the table of a plugin by its class; None if the file has none."""
        values = (getattr(self, name) for name in plugins("tables"))
        return next((value for value in values if isinstance(value, kind)), None)

    def command(self, words: str) -> str:
        """Return the command line that runs `words` (`study --resume`) with this task file, for messages."""
        return command(words, self.file)

    @property
    def metric(self) -> str:
        """Return the metric; the default of the task's kind if none is set."""
        return self.task.metric or default_metric(self.task.kind).name

    @property
    def judging_endpoint(self) -> str | None:
        """Return the name of the endpoint that judges answers; None if a local model does, or nothing is judged."""
        return self.judge.by if self.judge is not None and self.judge.by in self.api else None

    @property
    def judges_pairs(self) -> bool:
        """True if answers are compared with their references, by a model and by people."""
        return self.judge is not None and self.judge.against is not None

    @property
    def probes(self) -> frozenset[str]:
        """Return the probes of the arm to take: those of the study, and those that it must stand."""
        return frozenset({*self.study.probes, *self.target.probes})

    @property
    def rewording_endpoints(self) -> list[str]:
        """Return the name of the endpoint that asks test questions in other words, if a probe wants it; else none."""
        wanted = self.probes & {"other-words", "other-language"}
        return [self.study.rewords] if self.study.rewords and wanted else []

    @property
    def reflecting_endpoint(self) -> str | None:
        """Return the name of the endpoint that rewrites instructions by reflection; None if a local model does, or
        none."""
        named = next((name for name, table in self.api.items() if table.proposes), None)
        return named or (self.teacher.api if self.teacher.proposes else None)

    @property
    def reflects(self) -> bool:
        """True if a model is named that rewrites instructions by reflection."""
        return self.teacher.proposes or self.reflecting_endpoint is not None

    def scored_by(self, metric: str) -> Task:
        """Return the task with another metric."""
        return self.model_copy(update={"task": self.task.model_copy(update={"metric": metric})})

    @property
    def budget_seconds(self) -> float | None:
        """Return the study's budget in seconds of this machine, money by the hourly price; None without one."""
        amount = amount_of(self.study.budget)
        if amount is None:
            return None
        number, unit = amount
        if unit in SECONDS:
            return number * SECONDS[unit]
        return number / self.cost.machine_hour.price * 3600 if self.cost.machine_hour else math.inf

    @property
    def point_price(self) -> float | None:
        """Return what a point of 100 is worth in a month, in the currency where a machine hour has a price, else in
        machine seconds; None if it is not stated."""
        amount, hour = amount_of(self.target.point), self.cost.machine_hour
        if amount is None:
            return None
        number, unit = amount
        if unit not in SECONDS:
            return number
        seconds = number * SECONDS[unit]
        return seconds / 3600 * hour.price if hour else seconds

    def seconds_of(self, fee: float) -> float:
        """Return the seconds of the budget that a fee (in the task's currency) uses up; 0 if the budget is a time."""
        hour, amount = self.cost.machine_hour, amount_of(self.study.budget)
        return fee / hour.price * 3600 if hour and amount and amount[1] not in SECONDS else 0.0

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Return the arms to compare: those named, or every arm that the data allows."""
        names = self.study.arms or default_arms(self)
        return tuple(parse_arm(name, self) for name in names)


def _expanded_arm_table(name: str, table: Any) -> tuple[str, Any]:
    """Return an `[arm.NAME]` table completed with what its name says, if that is of the grammar."""
    meant = arm_from_name(name) if isinstance(name, str) and is_grammar_name(name) else None
    if meant is None or not isinstance(table, dict):
        return name, table
    weights = f"api-{meant.endpoint}" if meant.endpoint else meant.weights
    stages = {"stages": meant.stages} if meant.stages else {}
    return meant.name, {**table, "weights": weights, "context": meant.context, **stages}


def toml_string(text: str) -> str:
    """Return `text` quoted as a basic TOML string, whose escapes are those of JSON except for the delete character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def command(words: str, file: Path) -> str:
    """Return the command line that runs `words` with a task file, which is left out if it is the default one."""
    return f"trimtab {words}" + ("" if file == Path(TASK_FILE) else f" --task {shlex.quote(str(file))}")


def name_after(folder: Path) -> str:
    """Return a task name made from the folder's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._")[:64] or "task"


def default_arms(task: Task) -> tuple[str, ...]:
    """Return the arms for a task file that names none."""
    arms = ["linear"] if task.task.kind == "classify" else []
    if task.data.examples or not task.data.documents:
        arms += ["prompt", "few-shot", "lora"]
    if task.data.documents:
        arms += ["extract"] if task.task.kind != "classify" else []
        arms += ["rag"] + (["lora+rag"] if task.data.examples else [])
    own = [name for name, table in task.arm.items() if REWARD not in table.stages_trained]
    return tuple(dict.fromkeys((*arms, *own, *(f"api-{name}" for name in task.api))))


def parse_arm(name: str, task: Task) -> Arm:
    """Return the arm called `name`: an `[arm.NAME]` table, or a name of the grammar (`base/grammar.py`).

    Raises InputError when the name is not in the grammar, or the arm cannot run on this task.
    """
    where: dict[str, Any] = {}  # a name typed on the command line is in no file
    if name in (*task.study.arms, *task.arm):
        where = {"file": task.file, "field": "study.arms" if name in task.study.arms else f"arm.{name}"}
    try:
        meant = None if name in task.arm else arm_from_name(name)
        key = meant.name if meant else name
        arm = custom_arm(key, task.arm[key]) if key in task.arm else meant
    except ValueError as error:
        problem, _, remedy = str(error).partition("; ")
        raise InputError(f"arm {name!r}: {problem}", remedy, **where) from None
    if arm is None:
        near = nearest_name(name, (*task.arm, *(f"api-{key}" for key in task.api)))
        remedy = f"did you mean {near}?" if near else "use a method (lora, freeze, full), -docs, and + a context"
        raise InputError(f"unknown arm {name[:80]!r}", remedy, **where)
    _check_arm(arm, task, where)
    return arm


def custom_arm(name: str, table: ArmTable) -> Arm:
    """Return the arm that an `[arm.NAME]` table defines."""
    api = table.weights.startswith("api-")
    return Arm(
        name=name,
        weights="api" if api else table.weights,
        endpoint=table.weights.removeprefix("api-") if api else None,
        stages=table.stages_trained,
        context=table.context,
        settings=table.model_dump(exclude={"weights", "stages", "context"}, exclude_none=True),
    )


def require_sound_arm(arm: Arm) -> None:
    """Raise ValueError for a recorded arm that no task file defines: an unknown part, or a setting out of range."""
    require_arm(arm)
    if arm.settings:
        table = {"weights": arm.weights, "stages": arm.stages or None, "context": arm.context, **arm.settings}
        ArmTable.model_validate_json(json.dumps(table))


def require_answers(arm: Arm, task: Task) -> None:
    """Raise InputError for an arm that scores answers and gives none."""
    if REWARD in arm.stages:
        make = task.command(f"train {arm.name}")
        problem = f"arm {arm.name} answers nothing, it scores answers"
        raise InputError(problem, f"leave it out here; make it with: {make}", file=task.file)


def _check_arm(arm: Arm, task: Task, where: dict[str, Any]) -> None:
    if arm.endpoint is not None and arm.endpoint not in task.api:
        known = f"; there is {', '.join(f'api-{name}' for name in task.api)}" if task.api else ""
        raise InputError(
            f"arm {arm.name} has no [api.{arm.endpoint}] table{known}",
            f"add [api.{arm.endpoint}] with url and model",
            **where,
        )
    if not task.data.documents and (arm.retrieves or "docs" in arm.stages):
        raise InputError(
            f"arm {arm.name} needs documents and there are none", "set data.documents, or leave the arm out", **where
        )
    if set(JUDGED).intersection(arm.stages) and not task.data.preferences:
        problem = f"arm {arm.name} needs judged answers and there are none"
        raise InputError(problem, "set data.preferences, or leave the arm out", **where)
    if imitates_teacher(arm) and task.teacher == TeacherTable():
        problem = f"arm {arm.name} needs a teacher and there is none"
        raise InputError(problem, "set model or api in [teacher], or leave the arm out", **where)
    if task.task.kind == "classify" and learns_from_rewards(arm):
        problem = f"arm {arm.name} draws answers, and of a closed set the right label is known"
        raise InputError(problem, f"take {arm.weights}, which learns it directly", **where)
    if arm.weights == "extract" and task.task.kind == "classify":
        raise InputError(f"arm {arm.name} answers with a sentence, which is no label", "leave it out", **where)
    if "quote" in arm.parts and task.task.kind == "classify":
        raise InputError(f"arm {arm.name} answers with words of passages, which are no label", "leave it out", **where)
    if (arm.weights == "linear" or HEAD in arm.stages) and task.task.kind != "classify":
        raise InputError(f"arm {arm.name} is for tasks of kind classify", "leave it out", **where)
    if (is_trained(arm) or shots_of(arm)) and not task.data.examples:
        raise InputError(
            f"arm {arm.name} needs examples and there are none", "set data.examples, or leave the arm out", **where
        )


def load_task(path: Path | str = TASK_FILE, *, copy_of: Path | None = None, needs_data: bool = True) -> Task:
    """Read and validate a task file; a folder stands for the `trimtab.toml` in it.

    `copy_of`: the task file that this is a copy of, beside which the data lie. Without `needs_data` rows and documents
    may be absent. Raises MissingError if the file is absent, else InputError with the invalid key.
    """
    file = Path(path)
    if file.is_dir():
        file = file / TASK_FILE
    if not file.is_file():
        raise MissingError(f"{file}: {_no_task_file_remedy(file)}")
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 (from byte {error.start:,} on)", "save it as UTF-8", file=file) from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"not valid TOML ({error})", "correct the line it names", file=file) from None
    except ValueError:  # Python's own error for an integer of thousands of digits, which names no line
        raise InputError("a number has too many digits", "write it shorter", file=file) from None
    except RecursionError:
        raise InputError("nested too deeply", "write it as trimtab init does", file=file) from None
    reserved = next((key for key in AT_RUN_TIME if key in raw), None)
    if reserved is not None:
        raise InputError("unknown key", "take it out", file=file, field=reserved)
    failed = next((failed_plugins("tables")[key] for key in raw if key in failed_plugins("tables")), None)
    if failed is not None:
        raise InputError(failed.problem, "install it, or take the table out", file=file, field=failed.name)
    _check_names(raw, file)
    _take_drafts(raw, (copy_of or file).parent)
    try:
        task = Task(**{**raw, "file": copy_of or file})
    except ValidationError as error:
        raise as_input_error(error, Task, file) from None
    check_task(task, needs_data=needs_data)
    return task


def _take_drafts(raw: dict[str, Any], folder: Path) -> None:
    """Name the drafted questions as examples where somebody approved some, and the task names no others."""
    data = raw.get("data")
    if not isinstance(data, dict) or data.get("examples") or data.get("test"):
        return
    drafts = folder / DRAFTED_QUESTIONS
    if drafts.is_file() and any(line["state"] in APPROVED for line in read_own_lines(drafts, "state")):
        raw["data"] = {**data, "examples": [DRAFTED_QUESTIONS]}


def as_task(task: Task | Path | str) -> Task:
    """Return a task as it is, or read it from its file or folder (`load_task`)."""
    return task if isinstance(task, Task) else load_task(task)


def task_file_for(source: str | Path) -> Path:
    """Return the task file of a folder, a data file or a dataset. Raises MissingError for anything else."""
    path = Path(source)
    if path.is_dir():
        return path / TASK_FILE
    if path.is_file():
        return path.parent / TASK_FILE
    if is_dataset_id(str(source)) and not path.parent.is_dir():
        return Path(path.name) / TASK_FILE
    raise MissingError(f"{path}: no such folder and no such file; check the path")


def _check_names(tables: Mapping[str, Any], file: Path) -> None:
    """Check the names of arms and endpoints before their tables: `[arm.lora]` with a rank means the arm lora."""
    for field in ("arm", "api"):
        named_tables = tables.get(field)
        for name in named_tables if isinstance(named_tables, dict) else ():
            known = field == "arm" and is_grammar_name(name)
            if not ARM_NAME.fullmatch(name.replace("+", "-") if known else name):
                raise InputError(
                    f"name {name[:80]!r} has other characters than a-z, 0-9 and -", "rename it", file=file, field=field
                )
            if len(name) > LONGEST_NAME:  # a folder is named after it
                problem = f"name {name[:20]!r}… has {len(name):,} letters, and {LONGEST_NAME} are the most"
                raise InputError(problem, "rename it", file=file, field=field)
            if known:
                _check_settings(name, tables[field][name], file)


def _check_settings(name: str, table: Any, file: Path) -> None:
    """Refuse a table that contradicts the grammar name of its arm, and a table for an arm without settings."""
    where: dict[str, Any] = {"file": file, "field": f"arm.{name}"}
    try:
        meant = arm_from_name(name)
    except ValueError as error:
        problem, _, remedy = str(error).partition("; ")
        raise InputError(f"arm {name!r}: {problem}", remedy, **where) from None
    said = [key for key in ("weights", "stages", "context") if isinstance(table, dict) and key in table]
    if said:
        remedy = f"take {said[0]} out, or choose a name of your own, as in: [arm.my-{name.replace('+', '-')}]"
        raise InputError(f"{name!r} means an arm already, and its name says its {said[0]}", remedy, **where)
    if meant is not None and method_of(meant).answers_alone:
        raise InputError(f"arm {name} has no settings", "take the table out", **where)


def _no_task_file_remedy(file: Path) -> str:
    """Return what is missing without a task file and what to do; never a command that would fail too."""
    if not file.parent.is_dir():
        return "no such folder; check the path"
    others = sorted(file.parent.glob("*.toml"))
    near = difflib.get_close_matches(file.name, [other.name for other in others], n=1, cutoff=0.8)
    if near:
        return f"no such task file; did you mean {near[0]}?"
    init = "trimtab init" if file.parent == Path() else f"trimtab init {shlex.quote(str(file.parent))}"
    if file.name == TASK_FILE:
        return f"no task file; write one with: {init}"
    if file.parent / TASK_FILE in others:
        return f"no such task file; there is {file.parent / TASK_FILE}"
    return f"no such task file; {init} writes {file.parent / TASK_FILE}"


def with_budget(task: Task, budget: str) -> Task:
    """Return the task with another budget. Raises InputError unless it is a time, or money at a stated price."""
    try:
        StudyTable(budget=budget)
    except ValidationError as error:
        problem, remedy = f"{budget!r} is neither a time nor an amount", "write it as 90s, 30m, 2h or 20 USD"
        raise InputError(problem, remedy, field="budget") from error
    # a copy keeps the difference between keys that are set and defaults
    found = task.model_copy(update={"study": task.study.model_copy(update={"budget": budget})})
    _check_budget(found, field="budget")
    return found


def with_rows(task: Task, rows: int | None) -> Task:
    """Return the task on a sample of `rows` rows, None for all. Raises InputError for fewer than three splits need."""
    if rows is not None and rows < LEAST_ROWS:
        raise InputError(f"{rows} rows make no study", f"name {LEAST_ROWS} or more", field="rows")
    return task.model_copy(update={"rows": rows})


def with_arms(task: Task, names: Sequence[str]) -> Task:
    """Return the task with other arms. Raises InputError for none, for an unknown one, and for one named twice."""
    parsed = [parse_arm(name, task) for name in names]
    for arm in parsed:
        require_answers(arm, task)
    arms = [arm.name for arm in parsed]
    if not arms or len(set(arms)) < len(arms):
        problem = "an arm is named twice" if arms else "no arm is named"
        raise InputError(problem, "name each once, as in prompt,rag", field="--arms")
    return task.model_copy(update={"study": task.study.model_copy(update={"arms": tuple(arms)})})


def check_task(task: Task, *, needs_data: bool = True) -> None:
    """Refuse what is detectably wrong before anything is loaded: metric and kind, paths, arms, labels.

    Without `needs_data` paths may lead nowhere.
    """
    file, kind = task.file, task.task.kind
    _check_metric(task)
    if not task.data.examples and not task.data.documents:
        raise InputError("no examples and no documents", "set data.examples or data.documents", file=file, field="data")
    if task.labels.merge and kind != "classify":
        raise InputError(
            f"is for kind 'classify', and this is {kind!r}", "take it out", file=file, field="labels.merge"
        )
    _check_reward(task)
    _check_teacher(task)
    _check_probes(task)
    _check_judge(task)
    _check_budget(task, file=file, field="study.budget")
    _check_money(task, "a point", task.target.point, file=file, field="target.point")
    if task.data.canaries and kind == "classify":
        problem = "a canary's answer is random digits, and the answers of kind 'classify' are labels"
        raise InputError(problem, "take it out", file=file, field="data.canaries")
    if needs_data:
        _check_paths(task)
    for name, table in task.api.items():
        if not table.writes_text and kind != "classify":
            problem = f"api = {table.api!r} decides among the labels of a task of kind classify, and this is {kind!r}"
            raise InputError(problem, 'set api = "chat"', file=file, field=f"api.{name}.api")
    _check_arms(task)


def _check_metric(task: Task) -> None:
    """Refuse a metric that does not fit the kind of the task, or a scorer without its metric."""
    kind = task.task.kind
    if kind not in find_metric(task.metric).kinds:
        raise InputError(
            f"metric {task.metric!r} does not fit kind {kind!r}",
            f"use one of: {', '.join(metric.name for metric in metrics_of(kind))}",
            file=task.file,
            field="task.metric",
        )
    metric = find_metric(task.metric)
    if metric.judged != (task.judge is not None):
        remedy = "set both or neither"
        raise InputError('metric = "judged" and the table [judge] go together', remedy, file=task.file, field="judge")
    if (metric.score is None and not metric.judged) != bool(task.task.scorer):
        raise InputError(
            'metric = "scorer" and scorer = [...] go together',
            "set both or neither",
            file=task.file,
            field="task.scorer",
        )


def _check_judge(task: Task) -> None:
    """Refuse an endpoint as a judge that writes no text."""
    endpoint = task.judging_endpoint
    if endpoint is not None and not task.api[endpoint].writes_text:
        problem = f"api.{endpoint} writes no text"
        raise InputError(problem, "name an endpoint of the kind chat", file=task.file, field="judge.by")


def _check_arms(task: Task) -> None:
    """Refuse arms that the grammar does not know, that cannot answer this kind of task, or that are named twice."""
    for name in task.arm:
        parse_arm(name, task)
    for arm in task.arms:
        require_answers(arm, task)
    names = [arm.name for arm in task.arms]  # rag+lora and lora+rag are one arm
    if len(set(names)) < len(names):
        raise InputError("an arm is named twice", "name each once", file=task.file, field="study.arms")


def _check_money(task: Task, what: str, text: str, **where: Any) -> bool:
    """Refuse an amount of money in another currency than the prices, or without the price of a machine hour; True if it
    is money."""
    amount = amount_of(text)
    if amount is None or amount[1] in SECONDS:
        return False
    if amount[1] != task.cost.currency:
        problem = f"{what} in {amount[1]}, and the prices of [cost] are in {task.cost.currency}"
        raise InputError(problem, f"write it in {task.cost.currency}, or state cost.currency", **where)
    if task.cost.machine_hour is None:
        remedy = "state machine_hour = { price = …, as_of = …, source = … } under [cost], or write a time such as 30m"
        raise InputError(f"{what} in money, and a machine hour has no price", remedy, **where)
    return True


def _check_budget(task: Task, **where: Any) -> None:
    """Refuse a budget in money without the price of what it buys."""
    if not _check_money(task, "a budget", task.study.budget, **where):
        return
    asked = [*(arm.endpoint for arm in task.arms), task.teacher.api, task.judging_endpoint, task.reflecting_endpoint]
    asked += task.rewording_endpoints
    for name in filter(None, asked):
        if name in task.api and task.api[name].price_per_million is None:
            remedy = f"state price_per_million under [api.{name}], or write a time such as 30m"
            problem = f"a budget in money, and what api-{name} asks has no price"
            raise InputError(problem, remedy, **where)


def _check_reward(task: Task) -> None:
    """Refuse reward components without anything to compare with."""
    wanted = {
        "format": (bool(task.task.format), "task.format is not set", "set it"),
        "citation": (bool(task.data.documents), "there are no documents to cite", "set data.documents"),
        "tests": (
            "tests" in task.data.columns,
            "no column holds tests",
            'name it: data.columns = { tests = "…" }',
        ),
    }
    for name, (given, problem, remedy) in wanted.items():
        if getattr(task.reward, name) is not None and not given:
            raise InputError(problem, f"{remedy}, or take {name} out", file=task.file, field=f"reward.{name}")


def _check_teacher(task: Task) -> None:
    """Refuse a teacher that is absent or is the student."""
    table, problem, remedy = task.teacher, "", ""
    if table.api is not None and table.api not in task.api:
        problem, remedy = f"there is no [api.{table.api[:80]}] table", "add it with url and model"
    if table.model is not None and (table.model, table.revision) == (task.base.model, task.base.revision):
        problem = "the teacher is the base model itself, from which nothing can be learnt"
        remedy = "name a better model, or an endpoint"
    reflecting = [f"api.{name}" for name, own in task.api.items() if own.proposes] + ["teacher"] * table.proposes
    if len(reflecting) > 1:
        problem, remedy = f"{' and '.join(reflecting)} propose instructions", "set proposes in one of them"
    endpoint = task.reflecting_endpoint
    if endpoint is not None and endpoint in task.api and not task.api[endpoint].writes_text:
        problem, remedy = f"api.{endpoint} writes no text, so it proposes no instruction", "take proposes out"
    if problem:
        raise InputError(problem, remedy, file=task.file, field="teacher")


def _check_probes(task: Task) -> None:
    """Refuse rewording by an endpoint that is absent or writes no text, and another language without both keys."""
    name, problem, remedy = task.study.rewords, "", ""
    if name and name not in task.api:
        problem, remedy = f"there is no [api.{name[:80]}] table", "add it with url and model"
    elif name and not task.api[name].writes_text:
        problem, remedy = f"api.{name} writes no text", "name an endpoint that does"
    elif "other-language" in task.probes and not (name and task.study.language):
        problem = "the probe other-language needs an endpoint and a language"
        remedy = "set study.rewords and study.language, or take the probe out"
    if problem:
        raise InputError(problem, remedy, file=task.file, field="study.rewords")


def _check_paths(task: Task) -> None:
    """Refuse data that are not there."""
    for key in ("examples", "test", "documents", "preferences"):
        for pattern in getattr(task.data, key):
            _check_path(task, key, pattern)


def _check_path(task: Task, key: str, pattern: str) -> None:
    where: dict[str, Any] = {"file": task.file, "field": f"data.{key}"}
    try:
        if os.path.lexists(split_sheet(task.folder / pattern)[0]) or (
            not Path(pattern).is_absolute() and next(matching(task.folder, pattern), None) is not None
        ):
            return
    except (ValueError, OSError):
        raise InputError(
            f"{pattern[:80]!r} is no path and no pattern", "name a file, a folder or *.csv", **where
        ) from None
    if key in ("examples", "test") and is_dataset_id(pattern):
        return
    near = difflib.get_close_matches(Path(pattern).name, [item.name for item in task.folder.iterdir()], n=1)
    hint = (
        f"did you mean {near[0]}? paths are relative to the task file"
        if near
        else "paths are relative to the task file"
    )
    raise InputError(f"{printable(pattern, 200)} does not exist", hint, **where)


def _add_plugin_tables() -> None:
    """Add the tables of plugins to the fields of a task."""
    for name, table in plugins("tables").items():
        if name in Task.model_fields:
            refuse_plugin("tables", name, "the task file has a table of this name")
        else:
            Task.model_fields[name] = FieldInfo(annotation=table | None, default=None)
    Task.model_rebuild(force=True)


_add_plugin_tables()
call_plugins("records")  # before a task file is read, which may name what they add
