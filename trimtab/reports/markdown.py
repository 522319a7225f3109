"""The report as Markdown: the same facts without the charts and the answers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from trimtab.reports import details, effects, made
from trimtab.reports.analysis import factorials, failure_counts
from trimtab.reports.basis import caveats, rests_on
from trimtab.reports.folder import Row, Study
from trimtab.reports.markup import between, clean, interval, money, p_value, plain, score, seconds, signed, size
from trimtab.reports.parts import METRICS, in_words, metric_name
from trimtab.reports.summary import needed

SPECIAL = re.compile(r"([\\`*_\[\]|<>~#])")


def brief(study: Study) -> str:
    """The whole report in Markdown; a part for which there is nothing is left out."""
    return "\n".join([*_top(study), *_arms(study), *_why(study), *_found(study), *_made(study)])


def _top(study: Study) -> list[str]:
    shown = study.verdict.status == "shown"
    row, needs = study.row(study.verdict.arm), needed(study)
    state = "Shown" if shown else "Not shown"
    return [
        f"# {_text(study.verdict.sentence)}",
        "",
        f"**{state}** · task {_text(study.task)} · study {_text(study.id)}",
        "",
        *([f"**{_text(row.name)}**: {in_words(row.arm)}.", ""] if row and shown else []),
        *([f"What would settle it: {_text(needs)}", ""] if needs else []),
        f"Rests on {_text('; '.join(rests_on(study)))}.",
        "",
        *_list("Before you rely on it", caveats(study)),
    ]


def _arms(study: Study) -> list[str]:
    lines: list[str] = []
    if study.done:
        target = f", target {plain(study.target)}" if study.target is not None else ""
        means = f" ({METRICS[study.metric]})" if study.metric in METRICS else ""
        note = f"{metric_name(study)}{means}{target}; unadjusted 95% intervals, pass or fail after Holm. Measured, but for the cost, which is predicted."
        head = ["arm", "score", "95%", "target", "p50", "p95", "training", "peak memory", "stored", "cost"]
        lines += ["## Arms", "", note, "", *_table(head, [_arm(row, study.verdict.arm) for row in study.done])]
        basis = effects.cost_basis(study)
        lines += [f"Costs are worked out with {_text('; '.join(basis))}.", ""] if basis else []
    lines += _list("What each arm is", [f"{row.name}: {in_words(row.arm)}" for row in study.rows])
    return lines + _list(
        "Without a score",
        [
            f"{row.name} ({row.status.replace('_', ' ')}): {row.why or 'no reason was written down'}"
            for row in study.not_done
        ],
    )


def _arm(row: Row, chosen: str | None) -> list[str]:
    passes = None if row.passes is None else "passes" if row.passes else "not shown"
    cells = (
        score(row.score.value) if row.score else None,
        interval(row.score.low, row.score.high) if row.score else None,
        passes,
        seconds(row.latency_p50_ms / 1000) if row.latency_p50_ms is not None else None,
        seconds(row.latency_p95_ms / 1000) if row.latency_p95_ms is not None else None,
        seconds(row.train_seconds) if row.train_seconds else None,
        f"{row.peak_memory_mb:,.0f} MB" if row.peak_memory_mb is not None else None,
        size(row.stored_bytes) if row.stored_bytes else None,
        _text(money(row.cost.total, row.cost.currency)) if row.cost else None,
    )
    name = f"**{_text(row.name)}**" if row.name == chosen else _text(row.name)
    return [name, *(cell or "–" for cell in cells)]


def _why(study: Study) -> list[str]:
    """What tuning and context do together, the comparisons, and what would flip the verdict."""
    lines = _list("Weights × context", [effects.interaction_sentence(one) for one in factorials(study.done)])
    if study.comparisons:
        body = [
            [
                _text(effects.outcome(one)),
                signed(one.difference),
                between(one.low, one.high),
                _text(p_value(one.p_holm)),
            ]
            for one in map(effects.better_first, study.comparisons)
        ]
        lines += ["## Comparisons", "", *_table(["outcome", "difference", "95%", "after Holm"], body)]
    flips = effects.flip_sentences(study) if study.verdict.status == "shown" else []
    return lines + _list("What would flip it", flips)


def _found(study: Study) -> list[str]:
    """Failures by kind, and scores per class and slice."""
    lines: list[str] = []
    counts = {row.name: failure_counts(row.answers) for row in study.done if row.answers}
    kinds = [kind for kind in details.KINDS if any(of.get(kind) for of in counts.values())]
    if kinds:
        body = [[_text(name), *(f"{of.get(kind, 0):,}" for kind in kinds)] for name, of in counts.items()]
        lines += ["## Where it fails", "", *_table(["arm", *(details.KINDS[kind][0] for kind in kinds)], body)]
    chosen = study.row(study.verdict.arm) or next(iter(study.done), None)
    if chosen and chosen.classes:
        body = [
            [_text(one.label), f"{one.support:,}", score(one.precision), score(one.recall), score(one.f1)]
            for one in sorted(chosen.classes, key=lambda one: (one.f1, -one.support))[: details.MOST_SLICES]
        ]
        heading = f"## {_text(chosen.name)} class by class, weakest first"
        lines += [heading, "", *_table(["class", "questions", "precision", "recall", "F1"], body)]
    rows = [row for row in study.done if row.slices]
    names = list(dict.fromkeys(name for row in rows for name in row.slices))[: details.MOST_SLICES]
    if names:
        body = [
            [_text(name), *(score(row.slices[name].value) if name in row.slices else "–" for row in rows)]
            for name in names
        ]
        lines += ["## Slices", "", *_table(["slice", *(_text(row.name) for row in rows)], body)]
    return lines


def _made(study: Study) -> list[str]:
    """The data, the plan against what came, the machine and the hashes."""
    remarks = study.manifest.get("remarks") or []
    facts = details.data_facts(study.manifest)
    said = [f"{one.get('level', 'note')}: {one.get('text', '')}" for one in remarks[:30]]
    lines = _list("The data", [*(["; ".join(facts)] if facts else []), *said])
    body = made.plan_lines(study)
    if body:
        head = ["arm", "time predicted", "measured", "off by", "memory predicted", "measured", "off by"]
        lines += [
            "## The plan, and what came of it",
            "",
            *_table(head, [[_text(cell) for cell in line] for line in body]),
        ]
    return lines + _list("What it was made of", made.origins(study.manifest))


def _list(heading: str, items: Sequence[str]) -> list[str]:
    return [f"## {heading}", "", *(f"- {_text(item)}" for item in items), ""] if items else []


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """A table, its first column left and the others right; the cells are Markdown already."""
    rule = ["---", *(["---:"] * (len(head) - 1))]
    return [*(f"| {' | '.join(line)} |" for line in (head, rule, *body)), ""]


def _text(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return SPECIAL.sub(r"\\\1", " ".join(clean(text).split()))
