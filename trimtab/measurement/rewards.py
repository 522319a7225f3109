"""Rewards for reinforcement learning: parts from 0 to 1, each by a rule of this module, and their weighted sum."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol

from trimtab.base.config import RewardTable
from trimtab.base.errors import InputError
from trimtab.base.metrics import EXACT_MATCH, METRICS
from trimtab.base.records import Example, Hit
from trimtab.base.task import Task
from trimtab.measurement import code_tests
from trimtab.measurement.citations import supporting
from trimtab.measurement.evaluate import Scorer, judged_by, score_all, score_text
from trimtab.measurement.format_check import format_checker
from trimtab.measurement.metrics import has_abstained
from trimtab.measurement.numerals import canonical, numbers_in

MARGIN = 8  # tokens beyond the longest reference that cost nothing, where the limit leaves room for them
TRIED = 4  # rows whose references show whether the tests of a column can be run
_NUMBER = re.compile(r"(?:(?<![\w)\]])[-+])?[$€£¥]?(?P<digits>[0-9]+(?:[.,'’][0-9]+|[ ][0-9]{3}(?![0-9]))*)")
_LONG = 60  # digits from which on numbers are compared as they are written


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One answer to a row of the data, to be rewarded. `finished`: it ended by itself; `hits`: the passages in its
    prompt."""

    example: Example
    text: str
    new_tokens: int
    finished: bool = True
    hits: tuple[Hit, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewarded:
    """The reward of an answer: each part, 0 to 1, before its weight, and the sum of parts times weights."""

    total: float
    parts: Mapping[str, float]


class Reward(Protocol):
    """Interface of a reward: a function from answers to rewards, in their order. An example may have several
    answers."""

    def __call__(self, items: Sequence[Answered]) -> list[Rewarded]:
        """Return the rewards of the answers, together, as programs and models take many at once better than one by
        one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerTokens:
    """Lengths in tokens: of the longest reference of the training rows, and the maximum of an answer."""

    longest: int
    limit: int


RewardPart = Callable[[Sequence[Answered]], Sequence[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """The inputs from which parts are built."""

    task: Task
    examples: Sequence[Example]
    tokens: AnswerTokens
    scorer: Scorer | None
    program: Scorer | None
    model: RewardPart | None


@dataclass(frozen=True, slots=True)
class WeightedReward:
    """A reward whose total is the sum of its parts times their weights."""

    weights: Mapping[str, float]
    parts: Mapping[str, RewardPart]

    def __call__(self, items: Sequence[Answered]) -> list[Rewarded]:
        """Reward the answers; raises InputError where a program or function of the user gives anything but numbers
        from 0 to 1."""
        values = [part(items) for part in self.parts.values()]
        rows = [dict(zip(self.parts, row, strict=True)) for _, *row in zip(items, *values, strict=True)]
        return [
            Rewarded(total=math.fsum(self.weights[name] * value for name, value in row.items()), parts=row)
            for row in rows
        ]


def reward_of(
    task: Task,
    examples: Sequence[Example],
    tokens: AnswerTokens,
    *,
    scorer: Scorer | None = None,
    program: Scorer | None = None,
    model: RewardPart | None = None,
) -> Reward:
    """Return the reward that the table `[reward]` of a task file describes, for answers to these rows; without one the
    task's metric.

    `scorer` is that of the metric `scorer`. `program` is the running program of the table, or a function `(input,
    reference, answer) -> 0..1` in its place: with a table that names no program it weighs 1, without a table it is
    the whole reward. `model` scores answers by the trained reward model of the table, as logits. The caller asks for
    consent first where a program or tests are run. Raises InputError, in one line, for a part that has nothing to
    look at in these rows.
    """
    weights = task.reward.weights
    if program is not None and "program" not in weights:
        named = any(getattr(task.reward, name) is not None for name in type(task.reward).model_fields)
        weights = {**(weights if named else {}), "program": 1.0}
    given = _Given(task=task, examples=examples, tokens=tokens, scorer=scorer, program=program, model=model)
    return WeightedReward(weights, {name: _PARTS[name](given) for name in weights})


def _metric(given: _Given) -> RewardPart:
    """Return the part for the task's own metric, scored as in `evaluate_prompts`; abstaining included."""
    task, scorer = given.task, given.scorer
    return lambda items: score_all(_apart(items), [item.text for item in items], task, scorer)


def _apart(items: Sequence[Answered]) -> list[Example]:
    """Return the row of each answer with a unique id, for a program to answer by: several answers to a row are `id`,
    `id#2` …"""
    seen: set[str] = set()
    rows = []
    for item in items:
        name, count = item.example.id, 1
        while name in seen:
            count += 1
            name = f"{item.example.id}#{count}"
        seen.add(name)
        rows.append(replace(item.example, id=name))
    return rows


def _by_metric(metric: str) -> Callable[[_Given], RewardPart]:
    """Return the part for a metric that `[reward]` names, the best over the references; abstaining as in
    `evaluate_prompts`."""

    def part(given: _Given) -> RewardPart:
        return lambda items: [score_text(item.example, item.text, given.task, metric) for item in items]

    return part


def _number(given: _Given) -> RewardPart:
    """Return a part: 1 if the answer's last number is the last one of a reference, else 0; exact match if the
    references hold no number.

    The answer form of GSM8K (Cobbe et al. 2021): what is written before the result is free.
    """
    if all(last_number(reference) is None for example in given.examples for reference in example.references):
        raise InputError("no reference holds a number", "take it out, or reward exact_match", field="reward.number")

    def one(item: Answered) -> float:
        wanted = {last_number(reference) for reference in item.example.references} - {None}
        if not wanted:
            return score_text(item.example, item.text, given.task, EXACT_MATCH.name)
        return float(last_number(item.text) in wanted)

    return lambda items: [one(item) for item in items]


def last_number(text: str) -> str | Fraction | None:
    """Return the last number of a text, in digits, with its sign, as `numerals` reads it; `3/4` is a fraction. None if
    there is none.

    A sign counts where no letter, digit or bracket stands before it (`17-5` ends in 5). A percentage is the number
    before its sign.
    """
    text = text.replace("−", "-")
    last, value, before, over = None, "", None, ""
    for match in _NUMBER.finditer(text):
        if numbers := numbers_in(match["digits"]):
            before, over = last, value
            last, value = match, _signed(match[0], numbers)
    if last is None or len(value) > _LONG:
        return value or None
    if before is not None and text[before.end() : last.start()].strip() == "/" and len(over) <= _LONG:
        is_date = text[: before.start()].rstrip().endswith("/")
        if not is_date and Fraction(value):
            return Fraction(over) / Fraction(value)
    return Fraction(value)


def _signed(written: str, numbers: Sequence[str]) -> str:
    """Return the last of the numbers, with the sign that is written before the first."""
    value = canonical(numbers[-1])
    return f"-{value}" if written.startswith("-") and len(numbers) == 1 and value != "0" else value


def _format(given: _Given) -> RewardPart:
    """Return a part: 1 if the answer fits `task.format` (a JSON schema, or a regular expression from end to end), else
    0."""
    fits = format_checker(given.task.task.format, given.task.folder)
    return lambda items: [float(fits(item.text)) for item in items]


def _tests(given: _Given) -> RewardPart:
    """Return a part: 1 if the answer, which is code, passes the tests of its row, else 0; see `code_tests.passed`.

    Of the first rows with tests one reference at least must pass and the empty answer fail: else the column holds no
    tests.
    """
    rows = [example for example in given.examples if example.tests][:TRIED]
    if not rows:
        raise InputError("no row has tests", "fill the column data.columns.tests", field="reward.tests")
    right = code_tests.passed([(row.references[0], row.tests) for row in rows])
    empty = code_tests.passed([("", row.tests) for row in rows])
    if not any(ok and not nothing for ok, nothing in zip(right, empty, strict=True)):
        problem = f"of the first {len(rows)} tests none is passed by its row's answer and failed by an empty one"
        remedy = "write asserts in Python, at the top level or in functions test_…() without parameters"
        raise InputError(problem, remedy, file=rows[0].file or None, line=rows[0].line or None, field="reward.tests")

    def part(items: Sequence[Answered]) -> list[float]:
        tested = iter(code_tests.passed([(item.text, item.example.tests) for item in items if item.example.tests]))
        return [float(next(tested)) if item.example.tests else 0.0 for item in items]

    return part


def _length(given: _Given) -> RewardPart:
    """Return a part: 1 up to F tokens, then falling linearly to 0 at the limit M; 0 for an answer that did not end by
    itself.

    With L the longest reference, F = min(L + 8, (L + M) / 2): some room beyond what was seen, and always a slope.
    Where M is not above L, every answer that ended earns 1. After the soft overlong punishment of DAPO (Yu et al.
    2025, section 3.4), as a part in 0..1.
    """
    longest, limit = given.tokens.longest, given.tokens.limit
    free = min(longest + MARGIN, (longest + limit) / 2)

    def one(item: Answered) -> float:
        if not item.finished:
            return 0.0
        if item.new_tokens <= free or limit <= longest:
            return 1.0
        return max(0.0, (limit - item.new_tokens) / (limit - free))

    return lambda items: [one(item) for item in items]


def _citation(given: _Given) -> RewardPart:
    """Return a part: 1 if a passage in the prompt supports the answer by the rule for citations
    (`citations.supporting`), else 0.

    Abstaining says nothing that could be supported: it earns 1 where the row's reference abstains, and 0 elsewhere.
    """
    unknown = given.task.task.unknown

    def one(item: Answered) -> float:
        if has_abstained(item.text, unknown):
            return float(any(has_abstained(reference, unknown) for reference in item.example.references))
        return float(bool(supporting(item.text, item.hits, unknown, item.example.input)))

    return lambda items: [one(item) for item in items]


def _program(given: _Given) -> RewardPart:
    """Return the part of the user's program or function, 0 to 1; a function is called for each reference, and the best
    counts."""
    if given.program is None:
        raise InputError(
            "the program is not running", "start it first, or hand over a function", field="reward.program"
        )
    judge = given.program
    return lambda items: judged_by(judge, _apart(items), [item.text for item in items], "the reward function")


def _model(given: _Given) -> RewardPart:
    """Return the part of the trained reward model: the logistic of its score, the probability to win against score 0
    (Bradley & Terry 1952)."""
    if given.model is None:
        raise InputError("the reward model is not loaded", "load it first", field="reward.model")
    score = given.model
    return lambda items: [_logistic(value) for value in score(items)]


def _logistic(value: float) -> float:
    if math.isnan(value):
        raise InputError("the reward model gave no number", "train it again, at a lower rate", field="reward.model")
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


_PARTS: Mapping[str, Callable[[_Given], RewardPart]] = {
    "metric": _metric,
    **{name: _by_metric(name) for name in METRICS if name in RewardTable.model_fields},
    "number": _number,
    "format": _format,
    "tests": _tests,
    "length": _length,
    "citation": _citation,
    "program": _program,
    "model": _model,
}
