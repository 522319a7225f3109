"""`check`: audits a task without training: rows, splits, leaks, the loss mask, and the predicted time and memory of
each arm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any, Unpack

from trimtab.arms.answerers import missing_api_keys
from trimtab.arms.contexts import Context, PromptBuilder, context_for
from trimtab.arms.objectives import judged_answers
from trimtab.arms.planning.judging import judging_sentence
from trimtab.arms.planning.plan import Plan, cheapest_fit, largest_fitting_sample
from trimtab.arms.search.context_search import TrialPlan
from trimtab.arms.search.reflection import open_reflector, reflecting_endpoint
from trimtab.arms.session import Session, open_session
from trimtab.arms.teacher import teachers
from trimtab.arms.workspace import Workspace, open_workspace, sampled_splits
from trimtab.base.errors import InputError, MissingError, UnknownModelError
from trimtab.base.grammar import DISTILL, HEAD, method_of
from trimtab.base.machine import cores, memory_use
from trimtab.base.progress import Listener, Progress
from trimtab.base.records import Arm, Encoded, Example, Refusal
from trimtab.base.show import Shown, ShownRow
from trimtab.base.task import LEAST_ROWS, Task, with_arms, with_budget, with_rows
from trimtab.data.checks import Level, Remark, by_level, check_examples, check_size
from trimtab.data.leakage import describe_overlaps, describe_pair, drop_repeats, overlap_remedy
from trimtab.data.privacy import Finding
from trimtab.decision.caveats import LEAST_OF_SLICE
from trimtab.decision.pairs import comparisons_among
from trimtab.decision.staleness import longest_period_sentence
from trimtab.measurement.clusters import group_count
from trimtab.measurement.mix import effective_items
from trimtab.measurement.power import (
    GUESSED_DISCORDANCE,
    assumed_variation,
    groups_needed,
    items_for_difference,
    smallest_difference,
)
from trimtab.model.devices import gpu_count
from trimtab.studies.consent import request_of
from trimtab.studies.jobs import answering_jobs, making_jobs
from trimtab.studies.planning import detectable_difference, forecast, tests_to_cut
from trimtab.studies.run_context import resolve_task, run_context
from trimtab.studies.schedule import MachineCapacity, WallTime, describe_waits, wall_times
from trimtab.studies.settings import TaskKeywords, refuse_unknown
from trimtab.studies.sources import DataSource

FIRST_QUESTIONS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskRun:
    """A run of text in the rendered example. `trained`: True if the loss includes it."""

    text: str
    trained: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenStatistics:
    """Tokens of the training rows with the instruction alone, and the number of rows that exceed the model's
    context.
    """

    prompt_median: float
    prompt_longest: int
    answer_median: float
    answer_longest: int
    context: int
    too_long: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The predicted cost of an arm in a study; `cost` in the task's currency if a price is given.

    `problem`: why it cannot run or was not timed; nothing is then predicted. `trials`: its possible trials on dev,
    within the same time for every arm. `note`: says that training passes recompute layers to fit into memory.
    """

    arm: str
    minutes: float | None = None
    memory_mb: float | None = None
    cost: float | None = None
    left_out: str | None = None
    problem: str | None = None
    trials: tuple[TrialPlan, ...] = ()
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CheckResult(Shown):
    """Everything that `check` found. A remark of level `stop` must be resolved before a study."""

    task: str
    kind: str
    metric: str
    notes: tuple[str, ...]
    splits: Mapping[str, int]
    labels: Mapping[str, int]
    documents: int
    refused: tuple[Refusal, ...]
    overlaps: tuple[str, ...]
    private: tuple[Finding, ...]
    remarks: tuple[Remark, ...]
    example_arm: str | None = None
    example: tuple[MaskRun, ...] = ()
    tokens: TokenStatistics | None = None
    smallest_difference: float | None
    comparisons: int
    forecasts: tuple[Forecast, ...] = ()
    minutes: float | None = None
    currency: str | None
    cuts: tuple[str, ...] = ()
    effort: str = "none"
    search_seconds: float = 0.0  # seconds for the trials of every arm
    wall_times: tuple[WallTime, ...] = ()  # on machines like this one, if there is more than one run of an arm
    waits: tuple[str, ...] = ()  # sentences: which jobs wait for others there
    judged: Mapping[str, int] = field(default_factory=dict)  # judged answers in each split
    # the better and the worse answer of one preference
    judged_example: Mapping[str, tuple[MaskRun, ...]] = field(default_factory=dict)

    @property
    def headline(self) -> str:
        """Return the size of the data, and what stops a study."""
        sizes = ", ".join(f"{count:,} {name}" for name, count in self.splits.items())
        stops = [remark.text for remark in self.remarks if remark.level == "stop"]
        more = f" {len(stops) - 1} more, in .remarks." if len(stops) > 1 else ""
        found = f"Mend first: {stops[0]}{more}" if stops else "Nothing stops a study."
        return f"{self.task}: {self.kind}, scored by {self.metric}; {sizes}. {found}"

    def screen(self) -> Sequence[ShownRow]:
        """Return the predictions of each arm; the remarks and the rest are in the attributes."""
        return [
            {
                "arm": one.arm,
                "minutes": one.minutes,
                "memory MB": one.memory_mb,
                f"cost {self.currency}": one.cost,
                "": one.left_out or one.problem or one.note,
            }
            for one in self.forecasts
        ]


def check(
    task: DataSource = "trimtab.toml",
    *,
    folder: str | Path | None = None,
    budget: str | None = None,
    arms: Sequence[str] | None = None,
    rows: int | None = None,
    allow: Sequence[str] = (),
    listeners: Sequence[Listener] | None = None,
    timing: bool = True,
    audited: Callable[[CheckResult], object] | None = None,
    **settings: Unpack[TaskKeywords],
) -> CheckResult:
    """Audit a task: everything that can be seen without training, and a few seconds of each arm to predict the rest.

    `task`, `folder`, `budget`, `arms`, `rows`, `allow` and `settings` are those of `study`. `listeners` get every
    event; None shows progress on standard error. Without `timing` no arm is run, and `forecasts` stays empty. `audited`
    is called with what the rows alone tell, before any model is loaded. Raises InputError for files that cannot be read
    at all; what only stops a study is a remark. Raises StoppedError on KeyboardInterrupt.
    """
    refuse_unknown(settings, "check", signature(check).parameters)
    own = with_rows(resolve_task(task, listeners, settings, folder), rows)
    if budget is not None:
        own = with_budget(own, budget)
    if arms is not None:
        own = with_arms(own, arms)
    with run_context(own, listeners=listeners, allow=allow, scores=False) as ctx:  # and no endpoint is asked
        workspace = open_workspace(ctx.task, refuse_leaks=False)  # leaks are shown with everything else
        result = _audit(workspace)
        if audited is not None:
            audited(result)
        if not (workspace.splits["train"] and workspace.splits["test"]):
            return result
        return _with_model(result, workspace, ctx.progress() if timing else None)


def _audit(workspace: Workspace) -> CheckResult:
    """Return the result of auditing the rows alone."""
    task = workspace.task
    return CheckResult(
        task=task.task.name,
        kind=task.task.kind,
        metric=task.metric,
        notes=workspace.notes,
        splits={name: len(part) for name, part in workspace.splits.items()},
        labels=_labels(workspace),
        documents=len(workspace.documents),
        refused=workspace.refusals,
        overlaps=tuple(describe_pair(overlap) for overlap in workspace.overlaps),
        private=workspace.findings,
        remarks=by_level(_remarks(workspace, check_size(workspace.splits))),
        smallest_difference=_smallest(workspace) if workspace.splits["test"] else None,
        comparisons=comparisons_among(len(task.arms)),
        currency=task.cost.currency if task.cost.machine_hour else None,
        effort=task.study.effort,
        judged={name: len(part) for name, part in workspace.preferences.items() if part},
    )


def _remarks(workspace: Workspace, sizes: Iterable[Remark]) -> list[Remark]:
    """Return the remarks on the findings under the task's settings. `sizes`: the remarks on the numbers of rows."""
    task = workspace.task
    remarks = [*sizes, *check_examples(workspace.audit, workspace.splits, task)]
    if workspace.overlaps:
        level: Level = "stop" if task.data.leakage == "stop" else "warn"
        _, dropped = drop_repeats(workspace.audit, workspace.splits)
        remedy = overlap_remedy(workspace.overlaps, task, dropped)
        remarks.insert(0, Remark(level, f"{describe_overlaps(workspace.overlaps)}; {remedy}."))
    if not task.data.examples:
        remarks.insert(0, Remark("stop", _without_labels(task)))
    remarks += [*_group_remark(workspace), *_mix_remark(workspace)]
    if task.judge is not None and task.judge.groundedness and not any(arm.retrieves for arm in task.arms):
        text = "judge.groundedness changes nothing: no arm reads passages; add rag to study.arms, or take it out."
        remarks.append(Remark("note", text))
    remarks += [Remark("note", text) for text in (longest_period_sentence(task),) if text]
    return [*remarks, *_problem_remarks(missing_api_keys(task), task), *_address_remarks(task)]


def _address_remarks(task: Task) -> Iterator[Remark]:
    """Yield the addresses that a study would send questions to, with their keys: a task file may be somebody else's."""
    reflector, judge = reflecting_endpoint(task, task.arms), task.judging_endpoint
    names = [
        *(arm.endpoint for arm in task.arms if arm.endpoint),
        *teachers(task, task.arms),
        *task.rewording_endpoints,
    ]
    names += filter(None, (reflector, judge))
    requests = (request_of(task, name, rows=name == reflector, judges=name == judge) for name in names)
    for asked in dict.fromkeys(requests):
        yield Remark(
            "note", f"A study asks {asked.words}; unless your own configuration allows it, add: {asked.option}"
        )


def _group_remark(workspace: Workspace) -> Iterator[Remark]:
    """Yield a remark if the test questions have too few groups to show any difference."""
    groups, comparisons = _groups(workspace), comparisons_among(len(workspace.task.arms))
    needed = groups_needed(comparisons)
    if groups is not None and len(workspace.task.arms) > 1 and groups < needed:
        made = f"{comparisons} comparison{'s' * (comparisons > 1)} between arms"
        text = (
            f"The test questions form {groups} groups, too few to show any difference in {made}. "
            f"At least {needed} groups are needed: add questions of other groups, or compare fewer arms."
        )
        yield Remark("warn", text)


def _mix_remark(workspace: Workspace) -> Iterator[Remark]:
    """Yield a remark on the effective number of test questions under the traffic mix of the slices."""
    mix, slices = workspace.task.data.mix, [row.slice for row in workspace.splits["test"]]
    if not mix or not slices:
        return
    effective = effective_items(slices, mix)
    text = (
        f"Scores are weighted by data.mix: the {len(slices):,} test questions are as precise as {effective:,.0f} "
        "with equal weights."
    )
    yield Remark("note", text)
    for name, count in sorted(Counter(slices).items(), key=lambda one: one[1]):
        if count < LEAST_OF_SLICE and mix[str(name)] > 2 * count / len(slices):
            text = (
                f"The slice {name} is {mix[str(name)]:.0%} of the traffic but only {count} of {len(slices):,} test "
                "questions; add rows of it."
            )
            yield Remark("warn", text)


def _groups(workspace: Workspace) -> int | None:
    tests = workspace.splits["test"]
    return group_count([example.group for example in tests]) if tests else None


def _smallest(workspace: Workspace) -> float:
    return detectable_difference(workspace.splits["test"], comparisons_among(len(workspace.task.arms)), workspace.task)


def _sample_remark(workspace: Workspace, plan: Plan) -> Iterator[Remark]:
    """Yield a sample that fits the budget whole, with what it can show, if something is cut or left out."""
    task, rows = workspace.task, sum(map(len, workspace.splits.values()))
    fitting = largest_fitting_sample(plan, rows)
    if fitting is None or fitting < LEAST_ROWS:
        return
    try:
        splits, sample = sampled_splits(workspace.splits, with_rows(task, fitting))
    except InputError:  # a sample with fewer training rows than labels
        return
    if sample is None:
        return
    test, smallest = sample.used["test"], detectable_difference(splits["test"], comparisons_among(len(task.arms)), task)
    shows = f"differences from {smallest:.2f}" if smallest < 1 else "no difference"
    questions = f"{test:,} of {len(workspace.splits['test']):,} test questions"
    text = (
        f"With --rows {fitting} everything fits the budget of {task.study.budget}: {questions}, which can show {shows}."
    )
    yield Remark("note", text)


def _with_model(result: CheckResult, workspace: Workspace, progress: Progress | None) -> CheckResult:
    """Return the result with what needs the models and, with `progress`, the arms' predictions; if models are absent,
    the command that fetches them.
    """
    task = workspace.task
    try:
        session = open_session(workspace)
        arm, runs = _example(session)
        tokens = _token_statistics(session, workspace.splits["train"])
        session.reflector = open_reflector(session, progress) if progress else None
        plan = forecast(session, progress) if progress else None
    except MissingError as error:
        unknown = isinstance(error, UnknownModelError) and any(method_of(arm).uses_base for arm in workspace.task.arms)
        remark = Remark("stop" if unknown else "warn", f"Nothing is predicted{'' if unknown else ' yet'}: {error}")
        return replace(result, remarks=by_level([*result.remarks, remark]))
    splits = session.workspace.splits
    remarks = [*_remarks(workspace, ()), *check_size(splits)]  # rows that are too long have been removed by now
    too_long = len(session.workspace.refusals) - len(workspace.refusals)
    if too_long:
        rows = "1 row is" if too_long == 1 else f"{too_long:,} rows are"
        text = (
            f"{rows} longer than the model's {tokens.context} tokens and left out (see the rows not used); "
            "shorten them, or choose a base model with a longer context."
        )
        remarks.append(Remark("warn", text))
    cut, longest = task.task.output_tokens, _longest_answer(session)
    if cut and longest > cut:
        text = (
            f"The longest training answer has {longest:,} tokens, and task.output_tokens = {cut:,} "
            "cuts answers before that; raise it."
        )
        remarks.append(Remark("warn", text))
    if plan is not None and plan.judging is not None:
        remarks.append(Remark("note", judging_sentence(session, plan.judging)))
    result = replace(
        result,
        splits={name: len(part) for name, part in splits.items()},
        refused=session.workspace.refusals,
        remarks=by_level(remarks),
        example_arm=arm,
        example=runs,
        judged_example=_judged_example(session),
        tokens=tokens,
        smallest_difference=_smallest(session.workspace),
    )
    return _with_plan(result, plan, tokens, session.workspace) if plan is not None else result


def _with_plan(result: CheckResult, plan: Plan, tokens: TokenStatistics, workspace: Workspace) -> CheckResult:
    """Return the result with the arms' predictions within the budget."""
    task = workspace.task
    remarks = [*result.remarks, *_problem_remarks({arm.arm: arm.problem for arm in plan.arms if arm.problem}, task)]
    remarks += _sample_remark(workspace, plan)
    if plan.is_empty:
        cheapest, enough = cheapest_fit(plan, tests_to_cut(workspace, plan))
        text = (
            f"No arm fits the budget of {task.study.budget}, so a study would run nothing: {cheapest}. "
            f"It fits from study.budget = {enough!r} on."
        )
        remarks.append(Remark("stop", text))
    return replace(
        result,
        remarks=by_level(remarks),
        forecasts=tuple(_forecast(arm, plan, tokens, result.splits["test"], task) for arm in task.arms),
        minutes=plan.seconds / 60,
        cuts=plan.cuts,
        search_seconds=plan.allowance.search_seconds,
        **_on_machines(plan, task),
    )


def _on_machines(plan: Plan, task: Task) -> dict[str, Any]:
    """Return the fields `wall_times` and `waits` of a CheckResult: predictions for several machines like this one."""
    included = {one.arm: one for one in plan.included if not one.problem}
    arms = [arm for arm in task.arms if arm.name in included]
    making = making_jobs(task, arms, plan)
    answering = answering_jobs(task, arms, {name: plan.allowance_of(name).seeds for name in included}, plan)
    if len(answering) < 2:
        return {}
    gpus = gpu_count() if any(method_of(arm).uses_base for arm in arms) else 0
    here = MachineCapacity(cores=cores(), gpus=gpus or None, memory_mb=memory_use().total / 1e6)
    curves = sum(one.curve_seconds for one in included.values())
    price = task.cost.machine_hour.price if task.cost.machine_hour else None
    found = wall_times([making, answering], [here], here.cores, alone=curves, hour_price=price)
    return {"wall_times": found, "waits": tuple(describe_waits(making))}


def _longest_answer(session: Session) -> int:
    """Return the tokens of the longest reference of the training rows; 0 for a closed set, where nothing is
    truncated.
    """
    if session.task.task.kind == "classify":
        return 0
    train = session.workspace.splits["train"]
    return max((len(session.encoder.answer(reference)) for row in train for reference in row.references), default=0)


def _problem_remarks(problems: Mapping[str, str], task: Task) -> Iterator[Remark]:
    level: Level = "stop" if len(problems) == len(task.arms) else "warn"
    for problem in dict.fromkeys(problems.values()):
        arms = [arm for arm, own in problems.items() if own == problem]
        yield Remark(level, f"Arm{'s' * (len(arms) > 1)} {', '.join(arms)} cannot run: {problem.rstrip('.')}.")


def _example(session: Session) -> tuple[str, tuple[MaskRun, ...]]:
    """Return the first training row as the first trained language model reads it, split where the loss mask changes; a
    head reads no answer, and a teacher's answers are not known yet.
    """
    arms = [arm for arm in session.task.arms if method_of(arm).uses_base and not {HEAD, DISTILL} & {*arm.stages}] or [
        Arm(name="prompt", weights="base", stages=(), context="prompt")
    ]
    arm = next((arm for arm in arms if arm.stages), arms[0])
    context = context_for(arm)
    builder = PromptBuilder(session, context)
    prompt, answer = builder.training_prompts(session.workspace.splits["train"][:1], 0)[0]
    train_on = session.task.data.train_on if context.is_instruction_alone else "last"
    encoded = session.encoder.conversation(prompt.messages, answer, train_on=train_on)
    return arm.name, mask_runs(encoded, session.base.tokenizer.decode)


def _judged_example(session: Session) -> dict[str, tuple[MaskRun, ...]]:
    """Return the first training preference with its loss masks, both answers if there are two."""
    rows, _ = judged_answers(session, Context(), "train")
    row = next((row for row in rows if len(row.answers) == 2), rows[0] if rows else None)
    sides = {"better": row.chosen, "worse": row.rejected} if row else {}
    return {side: mask_runs(one, session.base.tokenizer.decode) for side, one in sides.items() if one is not None}


def mask_runs(encoded: Encoded, decode: Callable[[list[int]], str]) -> tuple[MaskRun, ...]:
    """Return runs of tokens with the same loss mask as text; special tokens are visible."""
    runs = groupby(zip(encoded.ids, encoded.trained, strict=True), key=lambda pair: pair[1])
    return tuple(MaskRun(text=decode([token for token, _ in run]), trained=trained) for trained, run in runs)


def _token_statistics(session: Session, train: Sequence[Example]) -> TokenStatistics:
    builder = PromptBuilder(session, Context())
    prompts = [len(session.encoder.prompt(prompt.messages)) for prompt in builder.prompts(train)]
    answers = [len(session.encoder.answer(example.references[0])) for example in train]
    whole = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    return TokenStatistics(
        prompt_median=median(prompts),
        prompt_longest=max(prompts),
        answer_median=median(answers),
        answer_longest=max(answers),
        context=session.context_tokens,
        too_long=sum(length > session.context_tokens for length in whole),
    )


def _forecast(arm: Arm, plan: Plan, tokens: TokenStatistics, tests: int, task: Task) -> Forecast:
    planned = next(item for item in plan.arms if item.arm == arm.name)
    if planned.problem:
        return Forecast(arm=arm.name, problem="cannot run, see the remarks")
    if arm.endpoint:
        price = task.api[arm.endpoint].price_per_million
        fee = (tokens.prompt_median * price.input + tokens.answer_median * price.output) / 1e6 if price else None
        return Forecast(
            arm=arm.name, cost=tests * fee if fee is not None else None, problem="not timed: check sends nothing"
        )
    seconds = planned.seconds(plan.allowance)
    hour = task.cost.machine_hour
    return Forecast(
        arm=arm.name,
        minutes=seconds / 60,
        memory_mb=planned.memory_mb,
        cost=seconds / 3600 * hour.price if hour else None,
        left_out=plan.left_out.get(arm.name),
        trials=planned.trials,
        note=planned.note,
    )


def _labels(workspace: Workspace) -> dict[str, int]:
    """Return the number of rows of each label of a classification, the most frequent first."""
    if workspace.task.task.kind != "classify":
        return {}
    counts = Counter(example.references[0] for part in workspace.splits.values() for example in part)
    return dict(counts.most_common())


def _without_labels(task: Task) -> str:
    shown = smallest_difference(FIRST_QUESTIONS, assumed_variation(), 1)
    finer = items_for_difference(shown / 2, GUESSED_DISCORDANCE, 1)
    ask = task.command('ask "…"')
    works = f"Until then {ask} answers from the documents. " if task.data.documents else ""
    drafts = f", or let {task.command('questions')} draft some to approve" if task.data.documents else ""
    return (
        f"There are no labelled examples, so arms cannot be compared. {works}"
        f"About {FIRST_QUESTIONS} test questions with their right answers show a difference of {100 * shown:.0f} "
        f"points between two arms, {finer} one of {50 * shown:.0f}; "
        f"write them one a line (question and answer) and name the file in data.examples{drafts}."
    )
