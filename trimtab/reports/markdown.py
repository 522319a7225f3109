"""The report in short, as Markdown."""

from __future__ import annotations

import re

from trimtab.reports import effects, results
from trimtab.reports.folder import Row, Study
from trimtab.reports.markup import between, clean, interval, money, p_value, plain, score, seconds, signed
from trimtab.reports.parts import metric_name

SPECIAL = re.compile(r"([\\`*\[\]|<>])")


def brief(study: Study) -> str:
    """Verdict, arms, comparisons, what would flip it, arms without a score, remarks on the data."""
    shown = "Shown" if study.verdict.status == "shown" else "Not shown"
    lines = [
        f"# {_text(study.verdict.sentence)}",
        "",
        f"**{shown}** · task {_text(study.task)} · study {_text(study.id)}",
        "",
    ]
    lines += [f"Rests on {_text('; '.join(results.rests_on(study)))}.", ""]
    if study.verdict.needs:
        lines += [f"What would settle it: {_text(study.verdict.needs)}", ""]
    if study.done:
        target = f", target {plain(study.target)}" if study.target is not None else ""
        lines += [
            "## Arms",
            "",
            f"{metric_name(study)}{target}; unadjusted 95% intervals, pass or fail after Holm. Measured, but for the cost, which is predicted.",
            "",
        ]
        lines += [
            "| arm | score | 95% | target | p95 | training | cost |",
            "| --- | ---: | :---: | --- | ---: | ---: | ---: |",
        ]
        lines += [_arm(row, row.name == study.verdict.arm) for row in study.done] + [""]
    if study.not_done:
        lines += ["## Without a score", ""]
        lines += [
            f"- {_text(row.name)} ({_text(row.status.replace('_', ' '))}): {_text(row.why or 'no reason was written down')}"
            for row in study.not_done
        ]
        lines.append("")
    if study.comparisons:
        lines += [
            "## Comparisons",
            "",
            "| arms | difference | 95% | after Holm | in words |",
            "| --- | ---: | :---: | --- | --- |",
        ]
        lines += [
            f"| {_text(one.a)} − {_text(one.b)} | {signed(one.difference)} | {between(one.low, one.high)} | {_text(p_value(one.p_holm))} | {_text(effects.in_words(one))} |"
            for one in study.comparisons
        ]
        lines.append("")
    if study.verdict.flips:
        lines += [
            "## What would flip it",
            "",
            *(f"- {_text(effects.flip_sentence(flip))}" for flip in study.verdict.flips),
            "",
        ]
    remarks = study.manifest.get("remarks") or []
    if remarks:
        lines += [
            "## The data",
            "",
            *(f"- {_text(str(one.get('level', 'note')))}: {_text(str(one.get('text', '')))}" for one in remarks[:30]),
            "",
        ]
    return "\n".join(lines)


def _arm(row: Row, chosen: bool) -> str:
    name = f"**{_text(row.name)}**" if chosen else _text(row.name)
    passes = "–" if row.passes is None else "passes" if row.passes else "not shown"
    return "| " + " | ".join(
        [
            name,
            score(row.score.value) if row.score else "–",
            interval(row.score.low, row.score.high) if row.score else "–",
            passes,
            seconds(row.latency_p95_ms / 1000) if row.latency_p95_ms is not None else "–",
            seconds(row.train_seconds) if row.train_seconds else "–",
            _text(money(row.cost.total, row.cost.currency)) if row.cost else "–",
        ]
    ) + " |"  # fmt: skip


def _text(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return SPECIAL.sub(r"\\\1", " ".join(clean(text).split()))
