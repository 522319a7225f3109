"""Converts judgements to training rows: preference pairs, single judged answers, and corrected answers as examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from trimtab.base.files import sha256_text
from trimtab.base.records import Example, Message, Split
from trimtab.base.task import Task
from trimtab.data.duplicates import DedupTexts, dedup_text, find_duplicates, normalise_text
from trimtab.data.ledger import LedgerRow
from trimtab.data.row_store import join_rows
from trimtab.serving.corrections import CorrectedRow, Correction, correction_rows, turns_of
from trimtab.serving.feedback_schema import Judgement, latest_judgements

SOURCE = "feedback"
HELD_OUT: tuple[Split, ...] = ("dev", "test")

REPLACED = "judged anew"
EQUAL = "the answers are equally good"
NO_CONTRAST = "an answer is empty, or both are the same"
REPEATED = "the same correction of the same question stands there already"
HELD_OUT_QUESTION = "corrections of a question that a dev or test row asks: it must not be trained on"
EARLIER_ANSWERS = 'corrections behind earlier answers, which would be trained on too; data.train_on = "last" takes them'
NO_LABEL = "corrections that are no label of the task"
UNWRITABLE = "corrections that the columns of the task file have no place for"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackRows:
    """Rows as `formats.md` defines them, and the number of skipped judgements by reason.

    `preferences` are pairs, `judged` single answers with a verdict, `examples` corrected answers, and `places` the
    ledger rows that put these into train.
    """

    preferences: tuple[CorrectedRow, ...]
    judged: tuple[CorrectedRow, ...]
    examples: tuple[CorrectedRow, ...]
    places: tuple[LedgerRow, ...]
    left_out: Mapping[str, int]


def feedback_rows(
    judgements: Iterable[Judgement], task: Task, splits: Mapping[Split, Sequence[Example]]
) -> FeedbackRows:
    """Convert judgements, oldest first, to rows; no question of `splits`' dev and test becomes an example.

    Only `prefer` and `correct` compare two answers. The last judgement of the same answers counts. Pairs and
    single answers may be about any question: they follow the split of their prompt (`data/preferences.py`).
    """
    left_out: Counter[str] = Counter()
    preferences: list[CorrectedRow] = []
    judged: list[CorrectedRow] = []
    corrected: list[Correction] = []
    every = [*judgements]
    latest = latest_judgements(every)
    left_out[REPLACED] += len(every) - len(latest)
    for one in (_without_instruction(one, task) for one in latest):
        if one.kind in ("like", "dislike"):
            judged += _single_answer_row(one, left_out)
            continue
        preferences += _pairs(one, left_out)
        if one.correction is not None:
            corrected.append(
                Correction(id=f"{_row_id(one)}-example", messages=one.messages, answer=one.correction.strip())
            )
    usable = _usable(corrected, task, splits, left_out)
    examples = correction_rows(usable, task, SOURCE)
    left_out[UNWRITABLE] += len(usable) - len(examples)
    return FeedbackRows(
        preferences=tuple(preferences),
        judged=tuple(judged),
        examples=tuple(row for _, row in examples),
        places=tuple(_ledger_row(one, task) for one, _ in examples),
        left_out={reason: count for reason, count in left_out.items() if count},
    )


def _without_instruction(one: Judgement, task: Task) -> Judgement:
    """Return the judgement without the task's own instruction, which every arm adds to a question itself."""
    first, *rest = one.messages
    if first.role != "system" or first.content.strip() != task.task.instruction.strip():
        return one
    return replace(one, messages=tuple(rest))


def _ledger_row(one: Correction, task: Task) -> LedgerRow:
    label = one.answer if task.task.kind == "classify" else ""
    return LedgerRow(one.id, one.group or f"row:{one.id}", label, "train")


def _row_id(judgement: Judgement) -> str:
    return f"{SOURCE}-{judgement.id}"


def _single_answer_row(one: Judgement, left_out: Counter[str]) -> Iterator[CorrectedRow]:
    text = one.answers[0].text.strip()
    if not text:
        left_out[NO_CONTRAST] += 1
        return
    fields = {"prompt": turns_of(one.messages), "answer": text, "good": one.kind == "like"}
    yield {"id": _row_id(one), **fields, "source": SOURCE}


def _pairs(one: Judgement, left_out: Counter[str]) -> Iterator[CorrectedRow]:
    """Yield the preferred answer paired with each other one; none if they are equally good."""
    if one.kind == "prefer" and one.chosen is None:
        left_out[EQUAL] += 1
        return
    better = one.correction if one.correction is not None else one.answers[one.chosen or 0].text
    chosen = better.strip()
    others = dict.fromkeys(answer.text.strip() for answer in one.answers)
    worse = [text for text in others if text not in ("", chosen)] if chosen else []
    left_out[NO_CONTRAST] += not worse
    for number, rejected in enumerate(worse, 1):
        pair = {"prompt": turns_of(one.messages), "chosen": chosen, "rejected": rejected}
        yield {"id": f"{_row_id(one)}-pair{number}", **pair, "source": SOURCE}


def _usable(
    corrected: Sequence[Correction],
    task: Task,
    splits: Mapping[Split, Sequence[Example]],
    left_out: Counter[str],
) -> list[Correction]:
    """Return the corrections that may be trained on, each with its group if the task has groups."""
    labels = _labels(task, splits)
    unique: dict[object, Correction] = {}
    for one in corrected:
        reason = ""
        if labels is not None and one.answer not in labels:
            reason = NO_LABEL
        elif task.data.train_on == "all" and any(message.role == "assistant" for message in one.messages):
            reason = EARLIER_ANSWERS
        elif (one.messages, one.answer) in unique:
            reason = REPEATED
        if reason:
            left_out[reason] += 1
        else:
            unique[one.messages, one.answer] = one
    held_out, groups = _match_existing_rows(list(unique.values()), splits)
    grouped = bool(task.data.group or task.data.columns.get("group"))
    usable = []
    for one in unique.values():
        if one.id in held_out:
            left_out[HELD_OUT_QUESTION] += 1
            continue
        group = groups.get(one.id) or f"{SOURCE}-{sha256_text(normalise_text(_compared_text(one)))[:12]}"
        usable.append(replace(one, group=group if grouped else None))
    return usable


def _labels(task: Task, splits: Mapping[Split, Sequence[Example]]) -> frozenset[str] | None:
    """Return the labels of a classification task; None for other tasks and if no labels are known."""
    if task.task.kind != "classify":
        return None
    seen = (row.references[0] for part in splits.values() for row in part)
    return frozenset(task.task.labels or seen) or None


def _compared_text(one: Correction) -> str:
    return dedup_text(Example(id=one.id, messages=one.messages, references=(one.answer,)))


def _match_existing_rows(
    corrected: Sequence[Correction], splits: Mapping[Split, Sequence[Example]]
) -> tuple[frozenset[str], dict[str, str]]:
    """Return the ids of corrections that repeat a dev or test question in any turn, and the groups of training rows
    that others repeat."""
    held_out = join_rows(*(splits[name] for name in HELD_OUT))
    rows = join_rows(held_out, splits["train"])
    asked: list[Example] = []
    for one in corrected:
        texts = dict.fromkeys((_compared_text(one), *(turn.content for turn in one.messages if turn.role == "user")))
        asked += (Example(id=one.id, messages=(Message(role="user", content=text),), references=()) for text in texts)
    owner = [one.id for one in asked]
    duplicates = find_duplicates(DedupTexts(join_rows(rows, asked)))
    new = range(len(rows), len(rows) + len(asked))
    kept_out = frozenset(owner[pair.b] for pair in duplicates.between(range(len(held_out)), new))
    groups: dict[str, str] = {}
    for pair in duplicates.between(range(len(held_out), len(rows)), new):
        group = splits["train"][pair.a].group
        if group is not None:
            groups.setdefault(owner[pair.b], group)
    return kept_out, groups
