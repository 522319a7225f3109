"""The sections of the report that let a reader look for themselves: failures, answers, slices, curves, data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, get_args

from trimtab.base.records import Answer, Failure
from trimtab.reports.analysis import Disagreement, disagreements, failure_counts, failure_examples
from trimtab.reports.charts import Series, both, curves
from trimtab.reports.events import Curve
from trimtab.reports.folder import Row, Study
from trimtab.reports.markup import Html, count, el, join, score, shorten
from trimtab.reports.parts import arm_label, metric_name, section, table, with_interval

KINDS: Mapping[str, tuple[str, str]] = {
    "retrieval_miss": ("passage not found", "The passage that holds the answer was not retrieved."),
    "misread": ("misread", "The right passage was there, and the answer still went wrong."),
    "format": ("format", "The answer does not fit the format that was asked for."),
    "abstained_wrongly": ("abstained wrongly", "It said that it does not know, though there is an answer."),
    "should_have_abstained": ("should have abstained", "It answered a question that has no answer here."),
    "wrong": ("wrong", "The answer is wrong in no more particular way."),
}
PRIVATE = {
    "email": "e-mail address",
    "card": "card number",
    "us_ssn": "social security number",
    "ipv4": "IP address",
    "phone": "phone number",
    "iban": "IBAN",
}
GRADED = ("token_f1", "rouge_l", "chrf", "scorer")
MOST_SLICES, MOST_REMARKS = 40, 100


def failures(study: Study) -> Html | None:
    """Failures by kind and arm, with examples to open."""
    rows = [row for row in study.done if row.answers]
    if not rows:
        return None
    counts = {row.name: failure_counts(row.answers) for row in rows}
    kinds = [kind for kind in get_args(Failure) if kind != "none" and any(counts[row.name].get(kind) for row in rows)]
    if not kinds:
        return section("failures", "Where it fails", el("p", "No answer was counted as a failure."))
    body = [
        [
            arm_label(row, row.name == study.verdict.arm),
            *(_share(counts[row.name].get(kind, 0), len(row.answers)) for kind in ("none", *kinds)),
        ]
        for row in rows
    ]
    first = sorted(rows, key=lambda row: row.name != study.verdict.arm)
    examples = [
        _examples(kind, failure_examples(first, kind), sum(counts[row.name].get(kind, 0) for row in rows))
        for kind in kinds
    ]
    lead = "Answers by kind of failure: how many, and their share of the arm’s answers. The examples below come from the chosen arm where it has any."
    if study.metric in GRADED:
        lead = f"An answer counts as right from a score of 0.5 up. {lead}"
    grid = table("Failures by kind", ["Arm", "right", *(KINDS[kind][0] for kind in kinds)], body)
    return section("failures", "Where it fails", grid, examples, lead=lead)


def _share(number: int, of: int) -> Html | str:
    share = "<1%" if number / of < 0.005 else f"{number / of:.0%}"
    return join(f"{number:,} ", el("span", share, class_="soft")) if number else "0"


def _examples(kind: str, found: list[tuple[Row, Answer]], total: int) -> Html:
    name, meaning = KINDS[kind]
    summary = el(
        "summary", el("b", name), f" {count(total, 'answer')} of all arms ", el("span", meaning, class_="soft")
    )
    return el(
        "details",
        summary,
        [el("div", _question(answer), _answers([(row, answer)]), class_="example") for row, answer in found],
    )


def _question(answer: Answer) -> Html:
    reference = " · ".join(shorten(one, 300) for one in answer.reference)
    return el(
        "dl",
        el("dt", "Question"),
        el("dd", shorten(answer.input), dir="auto"),
        el("dt", "Reference"),
        el("dd", reference or "–", dir="auto"),
        class_="question",
    )


def _answers(pairs: Sequence[tuple[Row, Answer]], chosen: str | None = None) -> Html:
    items = []
    for row, answer in pairs:
        kind = KINDS[answer.failure][0] if answer.failure in KINDS else ""
        sources = ", ".join(dict.fromkeys(hit.passage.source or hit.passage.id for hit in answer.hits))
        items.append(
            el(
                "li",
                el(
                    "div",
                    arm_label(row, row.name == chosen),
                    el("span", score(answer.score), class_="figure"),
                    el("span", kind, class_="no") if kind else None,
                    class_="who",
                ),
                el("div", shorten(answer.answer) or "(empty)", dir="auto", class_="said"),
                el("div", "passages: ", shorten(sources, 200), class_="soft") if sources else None,
            )
        )
    return el("ul", items, class_="answers")


def side_by_side(study: Study) -> Html | None:
    """A few questions with the answers of all arms beside each other."""
    found = disagreements(study.done, study.verdict.arm)
    if not found:
        return None
    lead = "Questions on which the arms differ most, by turns some that the chosen arm wins and some that it loses, where it does: picked to show differences, not a sample."
    return section("answers", "Answers side by side", [_side(one, study.verdict.arm) for one in found], lead=lead)


def _side(one: Disagreement, chosen: str | None) -> Html:
    return el("div", _question(one.answers[0][1]), _answers(one.answers, chosen), class_="example")


def slices(study: Study) -> Html | None:
    """Scores per value of the slice column."""
    names = list(dict.fromkeys(name for row in study.done for name in row.slices))
    if not names:
        return None
    rows = [row for row in study.done if row.slices]
    sizes = {name: max(row.slices[name].n for row in rows if name in row.slices) for name in names}
    names.sort(key=lambda name: (-sizes[name], name))
    left = len(names) - MOST_SLICES
    more = el("p", f"{left} smaller slices are in study.json.", class_="note") if left > 0 else None
    lead = "Scores per slice with unadjusted 95% intervals, largest slice first. Small slices have wide intervals; they describe, they do not decide."
    return section("slices", "Slices", _slice_table(study, rows, names[:MOST_SLICES], sizes), more, lead=lead)


def _slice_table(study: Study, rows: Sequence[Row], names: Sequence[str], sizes: Mapping[str, int]) -> Html:
    """Slices down and arms across; the other way round where there are more arms than slices."""
    arms = [arm_label(row, row.name == study.verdict.arm) for row in rows]
    titles = [
        join(shorten(name, 80), el("span", f" n\u00a0=\u00a0{sizes[name]:,}", class_="soft") if sizes[name] else None)
        for name in names
    ]
    cells = [[_slice(row, name) for row in rows] for name in names]
    if len(rows) > len(names):
        across = [[arm, *column] for arm, column in zip(arms, zip(*cells, strict=True), strict=True)]
        return table("Scores per slice", ["Arm", *titles], across)
    return table(
        "Scores per slice", ["Slice", *arms], [[title, *line] for title, line in zip(titles, cells, strict=True)]
    )


def _slice(row: Row, name: str) -> Html | str:
    one = row.slices.get(name)
    return with_interval(one) if one else "–"


def training(study: Study) -> Html | None:
    """Training curves: loss and dev loss, and the dev metric, for each training run."""
    parts = [
        _run(study, row, list(runs))
        for row in study.rows
        for _, runs in groupby(sorted(row.curves, key=_phase), key=_phase)
    ]
    found = [part for part in parts if part]
    if not found:
        return None
    names = (
        ("training loss", "swatch"),
        ("dev, in the arm’s colour", "swatch dev"),
        ("weights that were kept", "spot"),
    )
    legend = el("ul", [el("li", el("i", class_=kind), name) for name, kind in names], class_="legend")
    lead = "Dev decides when to stop; where dev loss rises while training loss falls, the model has begun to memorise."
    return section("training", "Training", legend, found, lead=lead)


def _phase(curve: Curve) -> int:
    return curve.phase


def _curves(arm: str, series: Sequence[Series], name: str) -> Html:
    def draw(width: int) -> Html:
        return curves(series, title=f"{arm}: {name}", y_title=name, width=width)

    return both(draw, 505)


def _run(study: Study, row: Row, runs: list[Curve]) -> Html | None:
    def lines(field: str, style: str) -> list[Series]:
        found = []
        for run in runs:
            points = tuple((point.step, value) for point in run.points if (value := getattr(point, field)) is not None)
            if points:
                name = f"{field.replace('_', ' ')}, seed {run.seed}"
                found.append(Series(name=name, style=style, points=points, kept=run.kept))
        return found

    losses, metrics = [*lines("loss", "train"), *lines("dev_loss", row.family)], lines("dev_metric", row.family)
    named = ((losses, "loss"), (metrics, f"dev {metric_name(study)}"))
    charts = [_curves(row.name, series, name) for series, name in named if series]
    if not charts:
        return None
    phases = max(curve.phase for curve in row.curves) + 1
    phase = runs[0].phase
    stage = (
        row.arm.stages[phase]
        if phases == len(row.arm.stages) and phases > 1
        else f"stage {phase + 1}"
        if phases > 1
        else ""
    )
    return el(
        "div",
        el("h3", arm_label(row), el("span", f" {stage}", class_="soft") if stage else None),
        [el("p", f"{note[:1].upper()}{note[1:].rstrip('.')}.", class_="warn") for note in row.health]
        if phase == phases - 1
        else None,
        el("div", charts, class_="pair"),
        class_="run",
    )


def data(study: Study) -> Html | None:
    """The data audit: splits, refused rows, overlaps, remarks, sources and licences."""
    counts = study.manifest.get("counts") or {}
    facts = data_facts(study.manifest)
    remarks = [_remark(remark) for remark in (study.manifest.get("remarks") or ())[:MOST_REMARKS]]
    kinds = [_counted(name, counts.get(name)) for name in ("source", "licence")]
    said = [el("li", shorten(str(note))) for note in (study.manifest.get("notes") or ())[:MOST_REMARKS]]
    if not facts and not remarks and not said and not any(kinds):
        return None
    return section(
        "data",
        "The data",
        el("p", "; ".join(facts), ".") if facts else None,
        el("ul", remarks, class_="remarks") if remarks else None,
        kinds,
        el("details", el("summary", el("b", "What was inferred while reading")), el("ul", said)) if said else None,
    )


def data_facts(manifest: Mapping[str, Any]) -> list[str]:
    """Splits, documents, refused rows, overlaps and private data, as far as the manifest counts them."""
    counts = manifest.get("counts") or {}
    facts = [f"{number:,} in {name}" for name, number in (counts.get("splits") or {}).items() if number is not None]
    facts = [f"Rows: {', '.join(facts)}"] if facts else []
    documents, refused, overlaps = (
        _number(value) for value in (counts.get("documents"), manifest.get("refused"), manifest.get("overlaps"))
    )
    if documents:
        facts.append(count(documents, "document"))
    if refused is not None:
        facts.append(f"{count(refused, 'row')} refused (refused.jsonl says why)" if refused else "no row refused")
    if overlaps is not None:
        facts.append(
            count(overlaps, "overlap between splits", "overlaps between splits")
            if overlaps
            else "no overlap between splits"
        )
    private = manifest.get("private") or {}
    if private:
        found = [count(number, PRIVATE.get(kind, kind)) for kind, number in private.items()]
        facts.append(f"private data in the rows: {', '.join(found)}")
    return facts


def _remark(remark: Mapping[str, Any]) -> Html:
    level = remark.get("level") if remark.get("level") in ("stop", "warn", "note") else "note"
    word = "warning" if level == "warn" else level
    return el("li", el("span", word, class_=f"level {level}"), " ", shorten(str(remark.get("text", ""))))


def _number(value: Any) -> int | None:
    """A count that may be written as a number or as the list itself."""
    return len(value) if isinstance(value, list) else int(value) if isinstance(value, int | float) else None


def _counted(name: str, counts: Any) -> Html | None:
    if not isinstance(counts, dict) or not set(counts) - {"not given", ""}:
        return None
    most = sorted(counts.items(), key=lambda pair: -pair[1])
    text = "; ".join(f"{key or 'not given'} {number:,}" for key, number in most[:20])
    return el("p", el("b", f"Rows by {name}: "), shorten(text, 800), class_="note")
