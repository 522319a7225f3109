"""What the verdict rests on, and what a reader should know before relying on it: plain sentences, for page and Markdown."""

from __future__ import annotations

from trimtab.reports.analysis import group_count
from trimtab.reports.folder import Row, Study
from trimtab.reports.markup import count, score


def rests_on(study: Study) -> list[str]:
    """What the verdict rests on, each part only when the files say it."""
    found = []
    items = max((row.score.n for row in study.done if row.score), default=0)
    if items:
        groups = _groups(study)
        within = f" in {groups:,} groups" if groups else ""
        found.append(f"{count(items, 'test question')}{within}, the same for every arm")
    openings = study.manifest.get("test_openings")
    if openings is not None:
        found.append("test set opened once" if openings == 1 else f"test set opened {openings} times")
    if study.base:
        found.append(f"base model {study.base}")
    seeds = study.manifest.get("seeds")
    if isinstance(seeds, list):
        found.append(f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(str(seed) for seed in seeds)}")
    elif seeds is not None:
        found.append(count(int(seeds), "training seed"))
    smallest = study.manifest.get("smallest_difference")
    if smallest is not None:
        found.append(f"differences from {score(smallest)} up can be seen with 80% power (predicted)")
    return found or ["what the files of this study do not say"]


def caveats(study: Study) -> list[str]:
    """What weakens the verdict or may change it, each a sentence; empty where the files name nothing."""
    found = []
    openings = study.manifest.get("test_openings")
    if openings is not None and openings > 1:
        found.append(
            "Each opening of the test set after the first makes the verdict weaker: arms get chosen to fit it."
        )
    cuts = study.manifest.get("cuts")
    if cuts:
        found.append(f"Cut to fit the budget: {'; '.join(map(str, cuts))}.")
    groups = study.manifest.get("too_few_groups")
    if groups:
        found.append(f"The test questions form only {groups} groups: of so few, intervals and tests are rough.")
    overlaps = study.manifest.get("overlaps")
    if isinstance(overlaps, int) and overlaps:
        found.append(f"{count(overlaps, 'overlap')} between splits let through: scores may be too high.")
    if study.not_done and study.done:
        found.append(f"Nothing is known of {_names(study.not_done)}: without a score they take no part in the verdict.")
    for row in study.rows:
        found += [f"{row.name}: {note.rstrip('.')}." for note in row.health]
        left_out = int(row.extras.get("skipped_rows", 0))
        if left_out:
            found.append(f"{row.name}: {count(left_out, 'training row')} longer than the model’s context, left out.")
    warnings = sum(1 for remark in study.manifest.get("remarks") or () if remark.get("level") in ("warn", "stop"))
    if warnings:
        found.append(f"{count(warnings, 'warning')} about the data: see “The data”.")
    return found


def _groups(study: Study) -> int | None:
    """The groups of the test questions, where they repeat."""
    return next((group_count(row.answers) for row in study.done if row.answers), None)


def _names(rows: tuple[Row, ...]) -> str:
    names = [row.name for row in rows]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
