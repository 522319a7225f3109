"""The pieces that every section is built from: sections, tables, arms with their marks, scores with their intervals."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from trimtab.base.records import Arm, Estimate
from trimtab.reports.charts import mark_shape
from trimtab.reports.folder import Row, Study
from trimtab.reports.markup import METRIC_NAMES, Html, el, interval, join, middle, plain, score

SHAPES = {"prompt": "circle", "few-shot": "square", "nearest-shots": "square", "rag": "diamond"}
CONTEXTS = {
    "prompt": "instruction",
    "few-shot": "fixed shots",
    "nearest-shots": "nearest shots",
    "rag": "retrieved passages",
}
METHODS = {
    "base": "the model as it is",
    "lora": "the model tuned by a small adapter (LoRA)",
    "freeze": "the model with its last layers tuned",
    "full": "the model with all its weights tuned",
    "linear": "no language model: a linear classifier over words or embeddings of the text",
    "api": "the model behind an endpoint",
}
SIGHTS = {
    "prompt": "asked with the instruction alone",
    "few-shot": "shown the same worked examples before every question",
    "nearest-shots": "shown worked examples like the question before it",
    "rag": "shown passages looked up in the documents",
}
METRICS = {
    "accuracy": "the share of answers that are right",
    "macro_f1": "precision and recall joined, each class counting alike",
    "exact_match": "the share of answers equal to a reference",
    "token_f1": "how far the words of answer and reference overlap, from 0 to 1",
    "rouge_l": "the longest common run of words of answer and reference, from 0 to 1",
    "chrf": "how far the characters of answer and reference overlap, from 0 to 1",
    "scorer": "what the task’s own scorer gave, from 0 to 1",
}
FAMILIES = {
    "base": "base weights",
    "tuned": "tuned weights",
    "blend": "tuned weights with shots or passages",
    "linear": "linear classifier",
    "api": "endpoint",
}


def section(name: str, heading: str, *children: object, lead: object = None) -> Html:
    """One section of the page, with a heading that can be linked to."""
    return el("section", el("h2", heading), el("p", lead, class_="lead") if lead else None, *children, id=name)


def table(label: str, head: Sequence[object], rows: Sequence[Sequence[object]], *, texts: Collection[int] = ()) -> Html:
    """A table that scrolls inside itself; the first column heads its row, the others are figures but for `texts`."""
    kinds = [None if index == 0 else "text" if index in texts else "number" for index in range(len(head))]
    titles = [el("th", name, scope="col", class_=kind) for name, kind in zip(head, kinds, strict=True)]
    body = []
    for first, *rest in rows:
        cells = [el("td", cell, class_=kind) for cell, kind in zip(rest, kinds[1:], strict=True)]
        body.append(el("tr", el("th", first, scope="row"), cells))
    inner = el("table", el("thead", el("tr", titles)), el("tbody", body))
    return el("div", inner, class_="scroll", role="region", aria_label=label, tabindex=0)


def arm_label(row: Row, chosen: bool = False) -> Html:
    """An arm's name behind its mark."""
    shape = mark_shape(SHAPES.get(row.arm.context, "circle"), 8, 8, row.family)
    icon = el("svg", shape, viewBox="0 0 16 16", width=14, height=14, aria_hidden="true", class_="icon")
    name = middle(row.name)
    title = row.name if name != row.name else None
    return join(el("span", icon, el("strong" if chosen else "span", name), class_="arm", title=title))


def metric_name(study: Study) -> str:
    """The metric as people write it."""
    return METRIC_NAMES.get(study.metric, study.metric)


def with_interval(found: Estimate) -> Html:
    """A score with its interval behind it."""
    return join(el("b", score(found.value)), el("span", f" [{interval(found.low, found.high)}]", class_="soft"))


def horizon(study: Study) -> str:
    """` over 12 months at 100,000 questions a month`, when the task file lies in the folder."""
    if study.cost is None:
        return ""
    return (
        f" over {plain(study.cost.horizon_months)} months at {plain(study.cost.questions_per_month)} questions a month"
    )


def in_words(arm: Arm) -> str:
    """What an arm is, for a reader who does not know its name."""
    method = METHODS.get(arm.weights, arm.weights)
    if arm.weights == "linear":
        return method
    order = " on the documents, then on the examples" if arm.stages == ("docs", "sft") else ""
    order = " on the documents alone" if arm.stages == ("docs",) else order
    own = ", ".join(
        f"{key.replace('_', ' ')} {f'{value:g}' if isinstance(value, float) else value}"
        for key, value in arm.settings.items()
    )
    return f"{method}{order}, {SIGHTS.get(arm.context, arm.context)}{f' ({own})' if own else ''}"
