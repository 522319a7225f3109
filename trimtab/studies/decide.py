"""Decision of a finished study: tests, corrections, people's audit, robustness checks, and the text of the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from trimtab.arms.fingerprint import judge_version
from trimtab.arms.judges import read_judgements
from trimtab.arms.store import ANSWERS, STUDY_FILE, read_arm
from trimtab.arms.trained_judges import trained_judge
from trimtab.base.errors import InputError, MissingError, TrimtabError
from trimtab.base.files import read_own, read_own_lines
from trimtab.base.grammar import TRIVIAL
from trimtab.base.metrics import find_metric
from trimtab.base.records import Answer, Arm
from trimtab.base.results import (
    ArmResult,
    Comparison,
    HumanAudit,
    OverTime,
    StudyResult,
    TrivialArm,
    Usage,
    Verdict,
    WeakClass,
)
from trimtab.base.task import Task
from trimtab.decision.caveats import (
    audit_sentence,
    groundedness_sentence,
    judge_bias_sentence,
    latency_sentence,
    over_time_sentence,
    self_judged_sentence,
    slices_sentence,
    stretches_sentence,
    trivial_arms,
    trivial_sentence,
    unscored_rules_sentence,
    weak_classes_sentence,
)
from trimtab.decision.evidence import Evidence, best_arm, evidence_of, score_of, scored_again
from trimtab.decision.first_screen import before_relying, opening, rule_ahead
from trimtab.decision.robustness import differing, robustness_checks, robustness_sentence
from trimtab.decision.sample_size import questions_to_judge
from trimtab.decision.summary import explained, unmarked, with_more
from trimtab.decision.today import take_today
from trimtab.decision.verdict import drafted
from trimtab.measurement.audit import Audited, criterion_shares
from trimtab.measurement.clusters import group_count
from trimtab.measurement.evaluate import load_answers
from trimtab.measurement.figures import behind_curve, score_estimate
from trimtab.measurement.judge_bias import OrderEffect, order_effect
from trimtab.measurement.over_time import newest_against_earlier, stretches_of_time, with_stretches
from trimtab.measurement.raters import agreements, audit_looks, judged_by_key, judgement_sources, said_by_person
from trimtab.measurement.weak_classes import weak_classes
from trimtab.studies.record import changed_since

AUDIT = "audit.jsonl"


def read_audit(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a study's audit, as they were written."""
    return list(read_own_lines(folder / AUDIT, "item", "answer", "criterion", "value"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The part of a study's result that follows from its answers; fields as in `StudyResult`."""

    verdict: Verdict
    arms: tuple[ArmResult, ...]
    comparisons: tuple[Comparison, ...]
    trivial: tuple[TrivialArm, ...]
    audit: HumanAudit | None
    level: float
    over_time: OverTime | None
    weak_classes: tuple[WeakClass, ...]
    to_judge: int | None

    @property
    def fields(self) -> dict[str, Any]:
        """Return the fields by name, for a `StudyResult`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def decide_study(
    folder: Path,
    task: Task,
    results: Sequence[ArmResult],
    answers: Mapping[str, Sequence[Answer]],
    arms: Sequence[Arm],
    usages: Mapping[str, Usage],
    *,
    trivial: Mapping[str, Sequence[Answer]],
    cuts: Sequence[str],
    look: int,
) -> Decision:
    """Decide the study in `folder` by its answers, and by people's judgements if there are enough.

    `results`, `answers`, `arms`, `usages`, `trivial`, `cuts` and `look` are those of `evidence_of`. Where questions
    near in time do alike, all that follows counts stretches of time and not questions.
    """
    asked, stretches = answers, stretches_of_time(answers)
    former = _former_answers(folder, answers, task)
    if stretches:
        former = [with_stretches(own, stretches) for own in former]
        answers = {arm: with_stretches(own, stretches) for arm, own in answers.items()}
        trivial = {name: with_stretches(own, stretches) for name, own in trivial.items()}
        results = [scored_again(arm, answers[arm.arm], task) if arm.arm in answers else arm for arm in results]
    rows = read_audit(folder)
    said = said_by_person(rows)
    judged = judged_by_key(rows, criterion_shares(task))
    looks, sources = audit_looks(rows), judgement_sources(rows)
    groups = group_count(list({row.item_id: row.group for own in answers.values() for row in own}.values()))

    def tested(results: Sequence[ArmResult], answers_by_arm: Mapping[str, Sequence[Answer]], task: Task) -> Evidence:
        def corrected(people: Audited | None) -> Evidence:
            return evidence_of(
                *(results, answers_by_arm, arms, task, usages),
                groups=groups,
                cuts=cuts,
                look=look,
                trivial=trivial,
                former=former,
                audited=people,
            )

        people = Audited(answers_by_arm, judged, task, looks, sources) if answers_by_arm else None
        if people is None or not (judged or find_metric(task.metric).judged):
            return corrected(None)
        found = corrected(None if people.why_not else people)
        return replace(found, to_judge=cache(lambda: questions_to_judge(people, corrected)))

    study = tested(results, answers, task)
    audited = Audited(answers, judged, task, looks, sources) if judged and answers else None
    verdict = replace(drafted(study), robustness=robustness_checks(study, answers, tested))
    beaten = trivial_arms(
        list(answers),
        {name: score_estimate(own, task) for name, own in trivial.items()},
        lambda arm, name: behind_curve(answers[arm], trivial[name], task)(0.0),
    )
    audit = None
    if audited is not None:
        audit = HumanAudit(
            answers=len(judged),
            questions=audited.count,
            arms=audited.by_arm,
            why_not=audited.why_not,
            n_effective=audited.effective,
            by=dict(Counter(person for by in said.values() for person in by)),
            agreement=agreements(said),
            unused=audited.unused,
        )
    changed = changed_since(folder)
    today = take_today(study, next((arm for arm in study.done if arm.arm == verdict.arm), None))
    spoken = today.arm if today else verdict.arm or best_arm(study.results, task)
    own = answers.get(spoken or "", ())
    over_time = newest_against_earlier(spoken or "", asked.get(spoken or "", ()), task)
    weak_on = weak_classes(own, task) if own else ()
    is_beaten = any(spoken in one.not_beaten_by for one in beaten)
    by_people = audit_sentence(audit, study.results, task)
    without_model = trivial_sentence(beaten, {arm.arm: score_of(arm).value for arm in study.done})
    checks, may_change = robustness_sentence(verdict, len(study.done), task), bool(differing(verdict))
    bias = judge_bias_sentence(_order_effect(answers, task), answers, task)
    weak = (
        self_judged_sentence(arms, task),
        "" if study.audited else bias,
        checks if may_change else "",
        without_model if is_beaten else unscored_rules_sentence(trivial, task),
        weak_classes_sentence(spoken, weak_on),
        groundedness_sentence(next((arm for arm in study.done if arm.arm == spoken), None)),
        stretches_sentence(len(set(stretches.values()))),
        "" if study.audited else by_people,
        f"Changed since the first study of these questions: {'; '.join(changed)}." if changed else "",
    )
    figures = (
        _trained_judge_sentence(task),
        f"{by_people} {bias}".strip() if study.audited else "",
        "" if is_beaten else without_model,
        "" if study.audited else slices_sentence(verdict.arm, answers, task, study.level),
        over_time_sentence(over_time),
        latency_sentence(task),
        "" if may_change else checks,
    )
    verdict = replace(verdict, today=today, details=with_more(verdict.sentence, unknown=weak, figures=figures))
    verdict = replace(verdict, sentence=opening(study, verdict, beaten, weak_on))
    by_class = weak_classes_sentence(spoken, weak_on)
    told = {by_class} | ({without_model} if today and rule_ahead(study, today.arm) else set())
    lines = before_relying(study, verdict, [line for line in weak if line not in told])
    return Decision(
        verdict=replace(
            verdict,
            sentence=explained(verdict.sentence, study),
            before_relying=tuple(unmarked(line) for line in lines),
            details=explained(verdict.details, study),
        ),
        arms=tuple(study.results),
        comparisons=tuple(study.comparisons),
        trivial=beaten,
        audit=audit,
        level=study.level,
        over_time=over_time,
        weak_classes=weak_on,
        to_judge=study.to_judge(),
    )


def _trained_judge_sentence(task: Task) -> str:
    """Say how often people agree with a judge that was trained; empty for another, or without its study."""
    with suppress(TrimtabError):
        judge = trained_judge(task)
        return judge.agreement if judge else ""
    return ""


def _order_effect(answers: Mapping[str, Sequence[Answer]], task: Task) -> OrderEffect | None:
    """Return how often the order changed the judge's choices, as far as they and the judge are on this machine."""
    if task.judge is None or not task.judges_pairs:
        return None
    with suppress(MissingError):
        return order_effect(read_judgements(task), judge_version(task), task.judge, answers)
    return None


def with_labels(task: Task, labels: Sequence[str]) -> Task:
    """Return the task with the labels of its data if it states none; a class without a test question is known by
    them alone."""
    if task.task.kind != "classify" or task.task.labels:
        return task
    return task.model_copy(update={"task": task.task.model_copy(update={"labels": tuple(labels)})})


def _former_answers(folder: Path, answers: Mapping[str, Sequence[Answer]], task: Task) -> list[Sequence[Answer]]:
    """Return what arms of former studies answered to the very questions of this one, scored by the same metric; in the
    order of this study's questions."""
    items = [one.item_id for one in next(iter(answers.values()), ())]
    place = {item: number for number, item in enumerate(items)}
    found: list[Sequence[Answer]] = []
    for study in sorted(folder.parent.glob(f"*/{STUDY_FILE}")):
        if study.parent.name >= folder.name or read_own(study).get("metric") != task.metric:
            continue
        for file in sorted(study.parent.glob(f"arms/*/{ANSWERS}")):
            if file.parent.name in TRIVIAL:
                continue
            with suppress(TrimtabError):  # of another form: then it is not known, as if it had been deleted
                own = load_answers(file)
                if len(own) == len(items) and {one.item_id for one in own} == place.keys():
                    found.append(sorted(own, key=lambda one: place[one.item_id]))
    return found


def decide_again(folder: Path, task: Task, before: StudyResult) -> StudyResult:
    """Decide a finished study by its stored answers, people's judgements and the present rules. Nothing is written.

    Raises InputError if no arm has answers, or an arm's record is absent.
    """
    done = [arm.arm for arm in before.arms if arm.status == "done"]
    if not done:
        raise InputError("no arm of this study has answers", "run one that does", file=folder)
    records = {arm: record for arm in done if (record := read_arm(folder / "arms" / arm))}
    lost = [arm for arm in done if arm not in records]
    if lost:
        raise InputError(f"the record of {lost[0]} is gone", "run the study again", file=folder)
    manifest = read_own(folder / "manifest.json")
    trivial = {one.arm: folder / "arms" / one.arm / ANSWERS for one in before.trivial}
    found = decide_study(
        folder,
        with_labels(task, manifest["labels"]),
        [records[one.arm].result if one.arm in records else one for one in before.arms],
        {arm: load_answers(folder / "arms" / arm / ANSWERS) for arm in done},
        [record.arm for record in records.values()],
        {arm: record.usage for arm, record in records.items()},
        trivial={name: load_answers(file) for name, file in trivial.items() if file.is_file()},
        cuts=manifest["cuts"],
        look=manifest["test_openings"],
    )
    return replace(before, **found.fields)
