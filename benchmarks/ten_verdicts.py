"""Ten verdicts for readers who know nothing of the study: made answers with a known truth, decided by a study's own
code (`decide_study`).

Each row of the result has the text and, in `facts`, what it must tell: the choice, the right answers, the cost, and
what is open. A person who reads a text alone should find the same (`docs/trust/simulation.md` measures whether
verdicts are true; this shows whether they are understood).

    python benchmarks/ten_verdicts.py [--only WORD] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from simulated import World, answers_of
from verdict_simulation import _random

from trimtab.base.files import write_json
from trimtab.base.records import Answer
from trimtab.base.results import ArmEffort, ArmResult, TokenFee, Usage
from trimtab.base.task import Task
from trimtab.decision.cost import cost_of
from trimtab.measurement.figures import score_estimate, score_floor
from trimtab.measurement.latency import latency_bound, latency_percentiles
from trimtab.studies.decide import AUDIT, Decision, decide_study

PRICE = {"price": 0.9, "as_of": "2026-11-01", "source": "contract"}
TOKENS = {"input": 0.5, "output": 2.0, "as_of": "2026-11-01", "source": "price list"}


def _usage(seconds: float, *, train: float = 0.0, index: float = 0.0, **more: Any) -> Usage:
    plain: dict[str, Any] = {
        "train_seconds": train,
        "evaluation_seconds": train / 20,
        "index_seconds": index,
        "seconds_per_question": seconds,
        "prompt_tokens": 700.0,
        "new_tokens": 30.0,
        "runs_on_own_machine": True,
        "trained": train > 0,
        "token_fee": None,
        "seconds_error": seconds / 100,
    }
    return Usage(**(plain | more))


API = _usage(0.8, runs_on_own_machine=False, token_fee=TokenFee(input=0.5, output=2.0))
USAGES = {
    "linear": _usage(0.004, train=20),
    "extract": _usage(0.02, index=20),
    "prompt": _usage(0.35),
    "rag": _usage(0.9, index=30),
    "few-shot": _usage(0.7),
    "lora": _usage(0.4, train=5400),
    "lora+rag": _usage(1.0, train=9000, index=30),
    "api-big": API,
    "api-big+rag": replace(API, prompt_tokens=1500.0, index_seconds=30),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A study: its arms with their true scores, its questions, and what is asked of it. `trivial`: the true score of
    an answer without a model. `p95_ms`: true latencies by arm. `slices`: the names of the world's slices, in its
    order. `undecided`: the share of an arm's answers that its metric cannot decide. `judged`: how many questions
    people judged, of whose right answers the metric misses `missed`.
    """

    name: str
    truths: Mapping[str, float]
    world: World
    target: float | None = None
    stated: Mapping[str, Any] = field(default_factory=dict)  # further keys of [target] and [cost]
    kind: str = "answer"
    metric: str = "contains"
    trivial: Mapping[str, float] = field(default_factory=dict)
    p95_ms: Mapping[str, float] = field(default_factory=dict)
    limit_ms: float | None = None
    slices: tuple[tuple[str, float], ...] = ()
    look: int = 1
    cuts: tuple[str, ...] = ()
    not_done: tuple[tuple[str, str, str], ...] = ()
    improving: tuple[str, ...] = ()
    undecided: Mapping[str, float] = field(default_factory=dict)
    judged: int = 0
    missed: float = 0.0
    draw: int = 0

    @property
    def task(self) -> Task:
        """Return its task file."""
        cost = {key: value for key, value in self.stated.items() if key != "margin"}
        target = {"quality": self.target, "latency_p95_ms": self.limit_ms}
        target |= {"margin": self.stated["margin"]} if "margin" in self.stated else {}
        labels = [str(place) for place in range(len(self.world.classes))] if self.kind == "classify" else []
        mix = {"mix": dict(self.slices)} if self.slices else {}
        names = [*self.truths, *(name for name, *_ in self.not_done)]
        return Task.model_validate(
            {
                "task": {"name": "support", "kind": self.kind, "metric": self.metric, "labels": labels},
                "data": {"examples": ["questions.csv"], "documents": ["handbook"], **mix},
                "base": {"model": "smollm2-135m-q4"},
                "target": target,
                "cost": cost,
                "study": {"arms": names},
                "api": {"big": {"url": "https://provider.example/v1", "model": "big", "price_per_million": TOKENS}},
            }
        )


PRICED = {"machine_hour": PRICE, "hosting": "on-demand", "questions_per_month": 20_000}
CASES = (
    Case(
        name="shown, with target and prices",
        truths={"linear": 0.9, "prompt": 0.55, "lora": 0.93, "api-big": 0.91},
        world=World(kind="macro-F1", n=400),
        target=0.8,
        stated=PRICED,
        kind="classify",
        metric="macro_f1",
        trivial={"most-frequent": 0.25, "nearest-answer": 0.7},
    ),
    Case(
        name="shown, without a target; nothing audited",
        truths={"prompt": 0.35, "rag": 0.86, "lora+rag": 0.86},
        world=World(n=1200, correlation=0.9),
        trivial={"always-unknown": 0.1, "nearest-answer": 0.3},
        undecided={"rag": 0.04, "lora+rag": 0.03},
    ),
    Case(
        name="not shown: two that cannot be told apart, in few groups",
        truths={"extract": 0.8, "rag": 0.55, "lora+rag": 0.83},
        world=World(sizes=(40, 30, 30, *[12] * 8)),
        stated=PRICED,
        trivial={"always-unknown": 0.1},
    ),
    Case(
        name="not shown: none reaches the target, and none can",
        truths={"prompt": 0.4, "rag": 0.72, "lora": 0.6, "lora+rag": 0.75},
        world=World(n=300),
        target=0.9,
        stated=PRICED,
        trivial={"always-unknown": 0.1},
    ),
    Case(
        name="not shown: more questions would help, third look",
        truths={"rag": 0.88, "lora": 0.7, "api-big+rag": 0.87},
        world=World(n=150),
        target=0.85,
        stated=PRICED,
        trivial={"always-unknown": 0.1},
        look=3,
    ),
    Case(
        name="an answer without a model reaches the target",
        truths={"linear": 0.94, "lora": 0.95},
        world=World(n=300),
        target=0.8,
        kind="classify",
        metric="accuracy",
        trivial={"most-frequent": 0.88, "nearest-answer": 0.8},
    ),
    Case(
        name="left out for latency, in a weighted mix of traffic",
        truths={"extract": 0.7, "rag": 0.9, "lora+rag": 0.95},
        world=World(n=500, mix="slices of 80 and 20% that are 30 and 70% of the traffic"),
        target=0.8,
        stated=PRICED,
        trivial={"always-unknown": 0.1},
        p95_ms={"extract": 60, "rag": 900, "lora+rag": 2400},
        limit_ms=1500,
        slices=(("returns", 0.3), ("delivery", 0.7)),
    ),
    Case(
        name="several runs, and a search that was cut",
        truths={"prompt": 0.4, "rag": 0.7, "lora+rag": 0.9},
        world=World(n=300, seeds=3, run_spread=0.01),
        target=0.8,
        stated=PRICED,
        trivial={"always-unknown": 0.1},
        cuts=("lora+rag: 3 of 8 learning rates were tried",),
        not_done=(("few-shot", "not_run", "needs 12 more minutes"), ("lora", "failed", "out of memory")),
        improving=("lora+rag",),
    ),
    Case(
        name="audited, with scores that people's judgements correct",
        truths={"extract": 0.6, "rag": 0.8, "lora+rag": 0.82},
        world=World(n=600, correlation=0.8),
        stated={**PRICED, "margin": 0.05},
        trivial={"always-unknown": 0.1},
        undecided={"rag": 0.05},
        judged=240,
        missed=0.15,
    ),
    Case(
        name="shown, without a target: the dearer one is better by more than the margin",
        truths={"linear": 0.62, "prompt": 0.5, "lora": 0.9, "api-big": 0.8},
        world=World(groups=90),
        stated={"questions_per_month": 5_000},
        kind="classify",
        metric="accuracy",
        trivial={"most-frequent": 0.25, "nearest-answer": 0.6},
    ),
)


def decided(case: Case) -> tuple[Decision, dict[str, list[Answer]], list[ArmResult]]:
    """Return the decision of a case, the answers that it was made from, and the arms' results."""
    random, task = _random("ten verdicts", case.name, case.draw), case.task
    world = case.world
    if case.kind == "classify" and world.kind == "right/wrong":
        world = replace(world, kind="macro-F1")
    made = answers_of(random, [*case.truths.values(), *case.trivial.values()], world)
    made = [[_named(row, case) for row in own] for own in made]
    answers = dict(zip(case.truths, made, strict=False))
    trivial = {name: made[len(answers) + place][: len(made[0])] for place, name in enumerate(case.trivial)}
    results = [_result(case, name, own, task, random) for name, own in answers.items()]
    results += [ArmResult(arm=name, status=status, why=why) for name, status, why in case.not_done]  # type: ignore[arg-type]
    arms = [arm for arm in task.arms if arm.name in answers]
    usages = {name: USAGES[name] for name in answers}
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "studies" / "made"
        study.mkdir(parents=True)
        if case.judged:
            (study / AUDIT).write_text("\n".join(map(json.dumps, _judgements(case, answers, random))), "utf-8")
        found = decide_study(
            *(study, task, results, answers, arms, usages), trivial=trivial, cuts=case.cuts, look=case.look
        )
    return found, answers, results


def _named(row: Answer, case: Case) -> Answer:
    """Return an answer with the slice's own name; of a question that has one right answer, it says a text of its
    own."""
    name = case.slices[int(row.slice)][0] if row.slice is not None and case.slices else row.slice
    text = row.answer if case.kind == "classify" else f"{row.answer} {row.score:.0f}"
    return replace(row, slice=name, answer=text)


def _judgements(
    case: Case, answers: Mapping[str, Sequence[Answer]], random: np.random.Generator
) -> list[dict[str, object]]:
    """Return people's judgements of every arm's answers to some questions: those that the metric accepts are right, and
    some of those that it rejects."""
    items = random.permutation(sorted({row.item_id for own in answers.values() for row in own}))[: case.judged]
    chosen, said = set(items.tolist()), dict[tuple[str, str], bool]()
    for own in answers.values():
        for row in own:
            if row.item_id in chosen:
                said.setdefault((row.item_id, row.answer), bool(row.score or random.random() < case.missed))
    return [{"item": item, "answer": answer, "right": right} for (item, answer), right in said.items()]


def _result(case: Case, name: str, answers: Sequence[Answer], task: Task, random: np.random.Generator) -> ArmResult:
    timed: dict[str, Any] = {}
    if name in case.p95_ms:
        seconds = case.p95_ms[name] / 1000 * np.exp(0.15 * (random.standard_normal(300) - 1.6448536))
        timed = {
            "latency_p95_ms": latency_percentiles(seconds.tolist())[1],
            "latency_p95_high_ms": latency_bound(seconds.tolist(), len(case.truths)),
        }
    effort = ArmEffort(seconds=900.0, trials=(), stopped="budget", improving=True) if name in case.improving else None
    return ArmResult(
        arm=name,
        status="done",
        score=score_estimate(answers, task),
        score_floor=score_floor(answers, task),
        seeds=len({answer.seed for answer in answers}),
        cost=cost_of(USAGES[name], task.cost),
        extras={"unsure": case.undecided[name]} if name in case.undecided else {},
        effort=effort,
        **timed,
    )


def facts(case: Case, found: Decision) -> dict[str, Any]:
    """Return what the text of a verdict must tell, from the records and not from the text."""
    rows = {}
    for arm in found.arms:
        if arm.score is None:
            rows[arm.arm] = {"status": arm.status, "why": arm.why}
            continue
        rows[arm.arm] = {
            "true score": case.truths[arm.arm],
            "score": round(arm.score.value, 4),
            "95% interval": [round(arm.score.low, 4), round(arm.score.high, 4)],
            "questions": arm.score.n,
            "shown to reach the target": arm.passes,
            "cost": None if arm.cost is None else [round(arm.cost.total, 2), arm.cost.currency],
            "p95 upper bound (ms)": arm.latency_p95_high_ms,
            "runs": arm.seeds,
        }
    audit = found.audit
    return {
        "status": found.verdict.status,
        "choice": found.verdict.arm,
        "needs": found.verdict.needs,
        "target": case.target,
        "metric": case.metric,
        "stated": {key: value for key, value in case.stated.items() if key != "machine_hour"},
        "limit_ms": case.limit_ms,
        "look": case.look,
        "level of the tests": found.level,
        "cuts": list(case.cuts),
        "arms": rows,
        "without a model": {
            one.arm: {"score": round(one.score.value, 4), "not beaten by": list(one.not_beaten_by)}
            for one in found.trivial
        },
        "audited questions": None if audit is None else audit.questions,
        "robustness": {one.what: one.arm for one in found.verdict.robustness},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name has this word; the result is then not written")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ten_verdicts.json")
    options = parser.parse_args()
    rows = []
    for number, case in enumerate(CASES, 1):
        if options.only not in case.name:
            continue
        found = decided(case)[0]
        rows.append({"case": case.name, "text": found.verdict.sentence, "facts": facts(case, found)})
        sys.stdout.write(f"{number}. [{case.name}: {found.verdict.status}]\n{found.verdict.sentence}\n\n")
    if not options.only:
        write_json(options.out, {"verdicts": rows})


if __name__ == "__main__":
    main()
