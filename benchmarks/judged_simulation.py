"""Checks judged scores, plain and corrected by people, on simulated studies whose true scores are known.

People grade an answer by two criteria (yes, partly, no); its true score is their mean. A judge grades it, too, with
errors: it may favour long answers, favour one arm, or say nothing (one grade for all). People grade the answers to some
questions, drawn as `trimtab audit` draws them. Counted over the studies: how often the 95% intervals of a score and of
the difference of two arms hold the true one, and how often the wrong arm, or one of two equal arms, is called better
(p ≤ .05, two-sided), by the plain average of the judge and corrected. In a cell with groups, questions come in groups
that are alike; in one with equal answers, both arms give the same answer to a share of the questions. Beside the draw
of `trimtab audit` stand others of as many questions, corrected in the same way: `uniform`, `differing` (1½ times as
often where the judge's grades differ) and `unsure` (twice as often there, 1½ times where equal grades are no end of
the scale). In cells with looks, people grade on and look again until something is shown. Every share has its Monte
Carlo error, sqrt(p (1 − p) / studies).

    python benchmarks/judged_simulation.py [--studies 2000] [--out FILE]

"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from simulated import plain_answer

from trimtab.base.files import write_json
from trimtab.base.records import Answer
from trimtab.base.task import Task
from trimtab.measurement.audit import ENOUGH, Audited, draw_audit
from trimtab.measurement.figures import difference
from trimtab.measurement.statistics import LEVEL, Difference

RESULT = Path(__file__).parent / "results" / "judged_simulation.json"
JUDGES = ("noisy", "favours long answers", "favours arm a", "says nothing")
# test questions, those of which people grade the answers, whether questions come in groups, and the share of those to
# which both arms give the same answer
SIZES: tuple[dict[str, Any], ...] = (
    {"questions": 200, "graded": 60, "groups": False, "equal answers": 0.0},
    {"questions": 300, "graded": 100, "groups": False, "equal answers": 0.0},
    {"questions": 300, "graded": 100, "groups": True, "equal answers": 0.0},
    {"questions": 300, "graded": 100, "groups": False, "equal answers": 0.4},
    {"questions": 300, "graded": 100, "groups": True, "equal answers": 0.4},
)
LOOKS: dict[str, Any] = {"questions": 300, "groups": False, "equal answers": 0.0}
DRAWN = ("uniform", "differing", "unsure")
QUALITY = {"equal": (0.0, 0.0), "b is better": (0.0, 0.35)}  # of each arm, in standard deviations of a grade
GROUP = 10  # questions of a group, in the cells with groups
DRAWS = 400_000  # answers from which the true scores are reckoned


def grades(quality_NC: Any) -> Any:
    """Return the mean of the grades (0, ½, 1) of the criteria, `[N]`, of qualities `[N, C]`."""
    return ((quality_NC > -0.8).astype(float) + (quality_NC > 0.3)).mean(1) / 2


def drawn(draw: np.random.Generator, cell: Mapping[str, Any], count: int) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Return people's and the judge's scores of two arms' answers to `count` questions, by arm, and to which of these
    both give the same answer."""
    people, judged = {}, {}
    same_N = draw.random(count) < cell["equal answers"]
    size = GROUP if cell["groups"] else 1
    hard_N = draw.normal(size=-(-count // size)).repeat(size)[:count]
    for arm, quality in zip("ab", QUALITY[cell["arms"]], strict=True):
        own_NC = quality + 0.7 * hard_N[:, None] + 0.7 * draw.normal(size=(count, 2))
        people[arm] = grades(own_NC)
        long_N = draw.random(count) < (0.7 if arm == "a" else 0.3)
        favour = {
            "favours long answers": 0.8 * long_N,
            "favours arm a": 0.6 * (arm == "a"),
        }.get(cell["judge"], 0.0)
        seen_NC = own_NC + 0.6 * draw.normal(size=(count, 2)) + np.reshape(favour * np.ones(count), (-1, 1))
        judged[arm] = np.ones(count) if cell["judge"] == "says nothing" else grades(seen_NC)
    for scores in (people, judged):
        scores["b"] = np.where(same_N, scores["a"], scores["b"])
    return people, judged, same_N


def studied(
    people: Mapping[str, Any], judged: Mapping[str, Any], same_N: Any, cell: Mapping[str, Any]
) -> tuple[Any, Any]:
    """Return the answers of the arms, and people's scores of them by question and answer."""

    def text(arm: str, item: int) -> str:
        return "the same" if same_N[item] else arm

    answers: dict[str, list[Answer]] = {
        arm: [
            replace(
                plain_answer(f"{item:04}", text(arm, item), float(score)),
                group=f"group {item // GROUP}" if cell["groups"] else None,
            )
            for item, score in enumerate(judged[arm])
        ]
        for arm in people
    }
    said = {(f"{item:04}", text(arm, item)): float(score) for arm in people for item, score in enumerate(people[arm])}
    return answers, said


def asked_of(drawn_by: str, answers: Mapping[str, Sequence[Answer]], count: int, draw: np.random.Generator) -> set[str]:
    """Return the questions of a draw that is compared with that of `trimtab audit`."""
    pairs = list(zip(answers["a"], answers["b"], strict=True))
    differ_N = np.array([a.score != b.score for a, b in pairs])
    middle_N = np.array([not differ and 0 < a.score < 1 for differ, (a, _) in zip(differ_N, pairs, strict=True)])
    rates_N = {
        "uniform": np.ones(len(pairs)),
        "differing": np.where(differ_N, 1.5, 1.0),
        "unsure": np.where(differ_N, 2.0, np.where(middle_N, 1.5, 1.0)),
    }[drawn_by]
    turn_N = np.zeros(len(pairs))
    for rate in set(rates_N.tolist()):
        places = draw.permutation(np.flatnonzero(rates_N == rate))
        turn_N[places] = (np.arange(len(places)) + 0.5) / (rate * len(places))
    return {pairs[place][0].item_id for place in np.argsort(turn_N, kind="stable")[:count]}


def gap_by(
    items: Set[str],
    answers: Any,
    said: Mapping[tuple[str, str], float],
    task: Task,
    plain: Difference,
    looks: int = 1,
) -> tuple[float, float]:
    """Return the difference corrected by what people say of some questions, and half of its interval's width."""
    people = Audited(answers, {key: score for key, score in said.items() if key[0] in items}, task, looks)
    error = (plain.high - plain.low) / (2 * float(stats.norm.isf(LEVEL / 2)))
    value, wide, degrees = people.corrected_gap("a", "b", plain.difference, error)
    return value, float(stats.t.isf(LEVEL / 2, degrees)) * wide


def of_task() -> Task:
    """A task whose answers are judged by two criteria."""
    return Task.model_validate(
        {
            "task": {"name": "t", "kind": "generate", "metric": "judged"},
            "data": {"examples": ["rows.jsonl"]},
            "base": {"model": "m"},
            "judge": {"criteria": {"one": "One.", "two": "Two."}},
        }
    )


def looked(cell: Mapping[str, Any], studies: int, seed: int) -> dict[str, float]:
    """Return the share of audits of two equal arms in which one is called better at some look: people grade on, and
    look again after so many questions, until it is or all are graded."""
    draw, task = np.random.default_rng(seed), of_task()
    found = {"wrongly better at some look": 0, "wrongly better at the first look": 0}
    for _ in range(studies):
        answers, said = studied(*drawn(draw, cell, cell["questions"]), cell)
        plain = difference(answers["a"], answers["b"], task)
        order = list(dict.fromkeys(one.item_id for one in draw_audit(answers, cell["questions"])))
        for look, graded in enumerate(range(ENOUGH, cell["questions"] + 1, cell["looks after"]), 1):
            value, reach = gap_by(set(order[:graded]), answers, said, task, plain, look)
            if abs(value) > reach:
                found["wrongly better at some look"] += 1
                found["wrongly better at the first look"] += look == 1
                break
    shares = {name: count / studies for name, count in found.items()}
    return {**shares, **{f"{name}, error": math.sqrt(share * (1 - share) / studies) for name, share in shares.items()}}


def simulated(cell: Mapping[str, Any], studies: int, seed: int) -> dict[str, float]:
    """Return shares of studies, with their Monte Carlo errors."""
    draw, found, widths, squares = np.random.default_rng(seed), Counter[str](), Counter[str](), Counter[str]()
    task = of_task()
    truth = {arm: float(scores.mean()) for arm, scores in drawn(np.random.default_rng(1), cell, DRAWS)[0].items()}
    gap_true = 0.0 if cell["arms"] == "equal" else truth["a"] - truth["b"]
    for _ in range(studies):
        answers, said = studied(*drawn(draw, cell, cell["questions"]), cell)
        asked = draw_audit(answers, cell["graded"])
        people = Audited(answers, {(one.item_id, one.answer): said[one.item_id, one.answer] for one in asked}, task)
        corrected, gaps = people.score("a"), {"corrected": people.difference("a", "b")}
        plain, gaps["plain"] = people.plain_score("a"), people.plain_gap("a", "b")
        whole, _ = gap_by({row.item_id for row in answers["a"]}, answers, said, task, gaps["plain"])
        widths["answers graded"] += len(asked)
        squares["error of the draw"] += (gaps["corrected"].difference - whole) ** 2
        for name in DRAWN:
            items = asked_of(name, answers, cell["graded"], draw)
            value, reach = gap_by(items, answers, said, task, gaps["plain"])
            widths[f"half width of the difference, {name}"] += reach
            squares[f"error of the draw, {name}"] += (value - whole) ** 2
            found[f"difference covered, {name}"] += abs(value - gap_true) <= reach
        for name, score in (("plain", plain), ("corrected", corrected)):
            gap = gaps[name]
            found[f"score covered, {name}"] += score.low <= truth["a"] <= score.high
            found[f"difference covered, {name}"] += gap.low <= gap_true <= gap.high
            found[f"wrongly better, {name}"] += gap.p <= LEVEL and gap.difference * gap_true <= 0
            found[f"rightly better, {name}"] += gap.p <= LEVEL and gap.difference * gap_true > 0
            widths[f"half width of the difference, {name}"] += (gap.high - gap.low) / 2
    shares = {name: count / studies for name, count in found.items()}
    errors = {f"{name}, error": math.sqrt(share * (1 - share) / studies) for name, share in shares.items()}
    means = {name: total / studies for name, total in widths.items()}
    errors |= {name: math.sqrt(total / studies) for name, total in squares.items()}
    return {"true difference": gap_true, **shares, **errors, **means}


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate every cell, print it and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    cells = [{**size, "judge": judge, "arms": arms} for size in SIZES for arms in QUALITY for judge in JUDGES]
    looks = {**LOOKS, "arms": "equal"}
    cells += [{**looks, "judge": judge, "looks after": after} for after in (20, 60) for judge in JUDGES]
    rows = []
    for seed, cell in enumerate(cells):
        found = (looked if "looks after" in cell else simulated)(cell, options.studies, seed)
        rows.append({"studies": options.studies, **cell, **found})
        print(
            {key: round(value, 3) if isinstance(value, float) else value for key, value in rows[-1].items()}, flush=True
        )
    write_json(options.out, {"rows": rows})


if __name__ == "__main__":
    main()
