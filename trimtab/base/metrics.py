"""Metrics: one record each, from the function that scores an answer to the words of the report; the only file that
names them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from trimtab.base.errors import InputError
from trimtab.base.records import AnswerForm, Kind
from trimtab.base.tables import add_row

# From question, reference and answer to a score, 0 to 1; None where it cannot tell, which counts as 0.
MetricScore = Callable[[str, str, str], float | None]
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_SCORES = "trimtab.measurement.metrics"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric. `kinds`: the kinds of task that it scores; the first metric of a kind is its default.

    `score`: the function, or "package.module:function", which is imported when an answer is scored; None where the
    task's own program or function scores. An answer's score is the best over its references. `right_or_wrong`: 1 says
    that the answer is right, and there is nothing between 0 and 1; of any other score nothing says "right". `by_class`:
    the figure of a set is macro-F1 over the classes (else the mean of the scores). `may_be_unsure`: `score` may return
    None. `counts_words`: it pays for shared words, also where a number among them is another one or a "not" turns them
    round. `judged`: a model grades by the criteria of `[judge]`, people grade by the same degrees, and until they have
    graded enough answers the figure decides nothing. `tells_exact`: the share of answers that equal a reference stands
    beside the figure wherever it is told.

    Words for readers: `label`, its name in the report; `meaning`, what the figure of a set is, behind the label;
    `average`, the same in the sentences of a verdict; `heading`, its name among other figures; `rule`, what it asks of
    an answer that its name does not say. `average` and `heading` follow from `label` if empty.
    """

    name: str
    kinds: tuple[Kind, ...]
    score: MetricScore | str | None
    label: str
    meaning: str
    right_or_wrong: bool = False
    by_class: bool = False
    may_be_unsure: bool = False
    counts_words: bool = False
    judged: bool = False
    tells_exact: bool = False
    average: str = ""
    heading: str = ""
    rule: str = ""

    @property
    def is_share(self) -> bool:
        """True if the figure of a set is the share of right answers."""
        return self.right_or_wrong and not self.by_class

    @property
    def average_words(self) -> str:
        """Return what the figure of a set is, for a sentence: `the share of right answers (accuracy)`."""
        return self.average or f"the {'share of right answers' if self.is_share else 'score'} ({self.label})"

    @property
    def heading_words(self) -> str:
        """Return its name among other figures: `Exact match`."""
        return self.heading or self.label[:1].upper() + self.label[1:]


EXACT_MATCH = Metric(
    name="exact_match",
    kinds=("answer", "generate"),
    score=f"{_SCORES}:exact_match",
    right_or_wrong=True,
    label="exact match",
    meaning="the share of answers equal to a reference",
    rule="the whole answer must match",
)
# In the order in which they are offered, the default of a kind first. `register_metric` adds to it.
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            name="accuracy",
            kinds=("classify",),
            score=f"{_SCORES}:same_label",
            right_or_wrong=True,
            label="accuracy",
            heading="accuracy",
            meaning="the share of answers that are right",
        ),
        Metric(
            name="macro_f1",
            kinds=("classify",),
            score=f"{_SCORES}:same_label",
            right_or_wrong=True,
            by_class=True,
            label="macro F1",
            heading="Macro-F1",
            meaning="precision and recall joined, each class counting alike",
            average="the score (macro-F1)",
            rule="each class counts alike",
        ),
        Metric(
            name="contains",
            kinds=("answer",),
            score=f"{_SCORES}:states_fact",
            right_or_wrong=True,
            may_be_unsure=True,
            label="right answers",
            heading="Right answers (contains)",
            meaning="the share that hold a reference and give nothing else in its place",
            average="the share of right answers",
        ),
        Metric(
            name="rouge_l",
            kinds=("generate",),
            score=f"{_SCORES}:rouge_l",
            counts_words=True,
            label="ROUGE-L",
            meaning="the longest common run of words of answer and reference, from 0 to 1",
        ),
        EXACT_MATCH,
        Metric(
            name="token_f1",
            kinds=("answer",),
            score=f"{_SCORES}:token_f1",
            counts_words=True,
            label="token F1",
            meaning="how far the words of answer and reference overlap, from 0 to 1",
        ),
        Metric(
            name="chrf",
            kinds=("generate",),
            score=f"{_SCORES}:chrf",
            counts_words=True,
            tells_exact=True,
            label="chrF",
            meaning="how far the characters of answer and reference overlap, from 0 to 1",
        ),
        Metric(
            name="json_f1",
            kinds=("generate",),
            score="trimtab.measurement.json_answers:json_f1",
            tells_exact=True,
            label="JSON F1",
            meaning="how far the keys and values of answer and reference agree, from 0 to 1",
        ),
        Metric(
            name="scorer",
            kinds=("generate",),
            score=None,
            label="own scorer",
            meaning="what the task’s own scorer gave, from 0 to 1",
            average="the score",
        ),
        Metric(
            name="judged",
            kinds=("generate", "answer"),
            score=None,
            judged=True,
            label="judged score",
            meaning="how far answers meet the criteria of [judge], from 0 to 1",
            average="the judged score",
        ),
    )
}


def register_metric(metric: Metric) -> None:
    """Add a metric. Raises InputError for a name that is taken or cannot be one, and for a graded one of labels."""
    where = f"the metric {metric.name[:80]!r}"
    if not _NAME.fullmatch(metric.name):
        raise InputError(f"{where} cannot be named so", "use lower-case letters, digits and _")
    if "classify" in metric.kinds and not metric.right_or_wrong:
        raise InputError(f"{where} grades labels", "score a label 0 or 1, and set right_or_wrong")
    add_row(METRICS, metric.name, metric)


def find_metric(name: str) -> Metric:
    """Return the metric of a name; for one that is not installed, a graded metric called by its name."""
    return METRICS.get(name) or Metric(name=name, kinds=(), score=None, label=name, meaning="")


def metrics_of(kind: Kind) -> list[Metric]:
    """Return the metrics of a kind of task, its default first."""
    return [metric for metric in METRICS.values() if kind in metric.kinds]


def suited_metrics(kind: Kind, form: AnswerForm) -> list[Metric]:
    """Return the metrics of a kind as a new task file offers them, the one of the answers' form first: of JSON its own,
    and of code one that sees every sign."""
    first = {"json": "json_f1", "code": "chrf"}.get(form)
    return sorted(metrics_of(kind), key=lambda metric: metric.name != first)


def default_metric(kind: Kind) -> Metric:
    """Return the metric of a task that names none."""
    return metrics_of(kind)[0]


def mean_metric(metric: Metric) -> Metric:
    """Return the metric whose figure is the mean of the same scores: accuracy for macro-F1, else the metric."""
    return default_metric("classify") if metric.by_class else metric


def right_metric(metric: Metric, kind: Kind) -> Metric | None:
    """Return the metric that says which answers are right: itself, else the default of the kind.

    None where that one is graded, too: nothing then says that an answer is right.
    """
    return next((judge for judge in (metric, default_metric(kind)) if judge.right_or_wrong), None)
