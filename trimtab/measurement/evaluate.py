"""Evaluates prompts with any `generate`: scores answers, classifies failures, and stores the table of answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.base.errors import InputError, MissingError
from trimtab.base.files import PARQUET_FORM, require_parquet_form, write_atomic
from trimtab.base.metrics import Metric, find_metric, right_metric
from trimtab.base.records import Answer, Example, Failure, Generation, Hit, Passage, Prompt, Split
from trimtab.base.sanitize import printable
from trimtab.base.task import Task
from trimtab.measurement.contains import stands_in
from trimtab.measurement.format_check import format_checker
from trimtab.measurement.judge import EQUAL
from trimtab.measurement.metrics import has_abstained, is_undecided, score_answer, score_one
from trimtab.measurement.ranking import holds
from trimtab.measurement.scorer import RowScorer, ScorerFunction, check_score

Generate = Callable[[Sequence[Prompt]], Sequence[Generation]]
Scorer = RowScorer | ScorerFunction


def evaluate_prompts(
    examples: Sequence[Example],
    prompts: Sequence[Prompt],
    generate: Generate,
    task: Task,
    *,
    split: Split,
    seed: int,
    scorer: Scorer | None,
) -> tuple[Answer, ...]:
    """Answer every prompt with `generate` and score the answers; `prompts[i]` belongs to `examples[i]`.

    In tasks of kind `answer`, an item whose reference is `task.unknown` scores 1 for abstaining and 0 for anything
    else, and abstaining from any other item scores 0: words shared with "I don't know" earn nothing. `scorer` is
    used for a metric without a function of its own. Raises InputError when prompts or generations do not match the
    examples.
    """
    generations = {item.id: item for item in generate(prompts)}
    names = [example.id for example in examples]
    if [prompt.id for prompt in prompts] != names or set(generations) != set(names) or len(generations) != len(names):
        raise InputError(
            f"{len(examples)} examples, {len(prompts)} prompts and {len(generations)} answers do not pair by id",
            "give one prompt and one answer for each example, with its id",
        )
    texts = [generations[name].text for name in names]
    scores = score_all(examples, texts, task, scorer)
    fits = format_checker(task.task.format, task.folder)

    def answer(example: Example, prompt: Prompt, score: float) -> Answer:
        generation = generations[example.id]
        text, plain, format_ok = generation.text, generation.plain_text, fits(generation.text)
        abstained = task.task.kind == "answer" and has_abstained(text, task.task.unknown)
        return Answer(
            item_id=example.id,
            split=split,
            group=example.group,
            slice=example.slice,
            seed=seed,
            input=example.input,
            reference=example.references,
            answer=text,
            score=score,
            format_ok=format_ok,
            abstained=abstained,
            probability=generation.probability,
            seconds=generation.seconds,
            prompt_tokens=generation.prompt_tokens,
            new_tokens=generation.new_tokens,
            hits=prompt.hits,
            failure=classify_failure(
                example,
                task,
                right=is_right(example, text, score, task),
                format_ok=format_ok,
                abstained=abstained,
                hits=prompt.hits,
                undecided=_undecided(example, text, task),
            ),
            plain_right=None if plain is None else score_text(example, plain, task) == 1.0,
            plain_probability=generation.plain_probability,
            time=example.time,
        )

    return tuple(map(answer, examples, prompts, scores))


def score_all(examples: Sequence[Example], texts: Sequence[str], task: Task, scorer: Scorer | None) -> list[float]:
    """Return the score of each text as an answer to its row, by the task's metric; `scorer` is used only for a metric
    without a function of its own, and not for answers that abstain, or should."""
    if find_metric(task.metric).score is not None:
        return [score_text(example, text, task) for example, text in zip(examples, texts, strict=True)]
    if scorer is None:
        raise InputError(
            f"the metric is {task.metric} and there is none", "set scorer, or hand over a function", field="task.scorer"
        )
    settled = [_abstention_score(example, text, task) for example, text in zip(examples, texts, strict=True)]
    open_ = [place for place, score in enumerate(settled) if score is None]
    scores = judged_by(scorer, [examples[i] for i in open_], [texts[i] for i in open_], "the scorer function")
    by_place = dict(zip(open_, scores, strict=True))
    return [by_place[place] if score is None else score for place, score in enumerate(settled)]


def _abstention_score(example: Example, text: str, task: Task) -> float | None:
    """Return the score of an answer that abstains or should, in tasks of kind `answer`; None for any other.

    Where answers are compared with their references, one that abstains as its reference does is as good as that.
    """
    if task.task.kind != "answer":
        return None
    due, abstained = _should_abstain(example, task), has_abstained(text, task.task.unknown)
    best = EQUAL if task.judges_pairs else 1.0
    return best * (due and abstained) if due or abstained else None


def judged_by(scorer: Scorer, examples: Sequence[Example], texts: Sequence[str], whose: str) -> list[float]:
    """Return the score of each text by a program, or by a function that errors call `whose`; the best over several
    references.

    Raises InputError where it gives anything but a number from 0 to 1 for each, and where the function raises.
    """
    if isinstance(scorer, RowScorer):
        rows = [
            (example.id, example.input, example.references, text) for example, text in zip(examples, texts, strict=True)
        ]
        by_id = scorer.score(rows)
        return [by_id[example.id] for example in examples]
    return [
        max(_asked(scorer, whose, example, reference, text) for reference in example.references)
        for example, text in zip(examples, texts, strict=True)
    ]


def _asked(function: ScorerFunction, whose: str, example: Example, reference: str, text: str) -> float:
    """Return a function's score of one answer; whatever it raises is reported as its fault, with the row."""
    try:
        value = function(example.input, reference, text)
    except Exception as error:
        said = f"{type(error).__name__} ({printable(str(error), 200)}) for the row {example.id!r}"
        raise InputError(
            f"{whose} raised {said}",
            "mend it: it is given input, reference and answer, and returns a number from 0 to 1",
            file=example.file or None,
            line=example.line or None,
        ) from error
    plain = value.item() if isinstance(value, np.generic) else value
    return check_score(float(plain) if isinstance(plain, bool) else plain, whose)


def score_text(example: Example, text: str, task: Task, metric: str = "") -> float:
    """Return the score of one answer by a metric that needs no program, by default the task's."""
    metric = metric or task.metric
    if task.task.kind == "answer":
        return score_answer(metric, text, example.references, example.input, task.task.unknown)
    return score_one(metric, text, example.references, example.input)


def is_right(example: Example, text: str, score: float, task: Task) -> bool | None:
    """True if an answer is right: by the metric if it is right or wrong, else by the default of its kind if that one is
    (`contains`, where references are facts).

    None where a metric is graded and references are free text: how near an answer comes to one does not say whether
    it is right.
    """
    judge = _judge(task)
    if judge is None:
        return None
    return (score if judge.name == task.metric else score_text(example, text, task, judge.name)) == 1.0


def _judge(task: Task) -> Metric | None:
    return right_metric(find_metric(task.metric), task.task.kind)


def _should_abstain(example: Example, task: Task) -> bool:
    return task.task.kind == "answer" and any(
        has_abstained(reference, task.task.unknown) for reference in example.references
    )


def classify_failure(
    example: Example,
    task: Task,
    *,
    right: bool | None,
    format_ok: bool,
    abstained: bool,
    hits: Sequence[Hit],
    undecided: bool = False,
) -> Failure:
    """Return the first cause, in this order, that explains a wrong answer.

    none: right (see `is_right`). should_have_abstained: the reference is `unknown`. retrieval_miss: there were
    passages, and none was the right one (where the data names none: in tasks of kind `answer`, none contains a
    reference); it comes before abstained_wrongly, because abstaining is then what the passages call for. format: the
    answer does not fit. undecided: the metric cannot tell whether it is right. misread: the right passage was there.
    wrong: nothing more is known. Where nothing tells right from wrong, an answer that does not fit the format fails
    by it, and no other fails.
    """
    if right is None:
        return "none" if format_ok else "format"
    if right:
        return "none"
    if _should_abstain(example, task):
        return "should_have_abstained"
    found = _found(example, task, hits)
    if found is False:
        return "retrieval_miss"
    if abstained:
        return "abstained_wrongly"
    if not format_ok:
        return "format"
    if undecided:
        return "undecided"
    return "misread" if found else "wrong"


def _undecided(example: Example, text: str, task: Task) -> bool:
    """True if the metric that says whether this answer is right (see `is_right`) cannot."""
    judge = _judge(task)
    if judge is None:
        return False
    return is_undecided(judge.name, text, example.references, example.input, task.task.unknown)


def _found(example: Example, task: Task, hits: Sequence[Hit]) -> bool | None:
    """True if the right passage is among the hits; None if nothing was retrieved or the data do not tell."""
    if not hits:
        return None
    if example.passages:
        return any(holds(hit.passage, name) for hit in hits for name in example.passages)
    if task.task.kind != "answer":
        return None
    return any(stands_in(hit.passage.text, reference) for hit in hits for reference in example.references)


def answers_schema(*, timed: bool = False) -> Any:
    """Return the columns of `answers.parquet`; `timed`: with the times of the rows."""
    import pyarrow as pa

    passage = pa.struct([("id", pa.string()), ("source", pa.string()), ("rank", pa.int64()), ("score", pa.float64())])
    return pa.schema(
        [
            ("item_id", pa.string()),
            ("split", pa.string()),
            ("group", pa.string()),
            ("slice", pa.string()),
            ("seed", pa.int64()),
            ("input", pa.string()),
            ("reference", pa.list_(pa.string())),
            ("answer", pa.string()),
            ("score", pa.float64()),
            ("format_ok", pa.bool_()),
            ("abstained", pa.bool_()),
            ("probability", pa.float64()),
            ("seconds", pa.float64()),
            ("prompt_tokens", pa.int64()),
            ("new_tokens", pa.int64()),
            ("passages", pa.list_(passage)),
            ("failure", pa.string()),
            *([("time", pa.string())] if timed else []),
        ],
        PARQUET_FORM,
    )


def save_answers(path: Path, answers: Sequence[Answer]) -> None:
    """Write the answers as Parquet, atomically; of a passage its id, source, rank and score are kept."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = answers_schema(timed=any(answer.time is not None for answer in answers))
    rows = [
        {name: _passages(answer.hits) if name == "passages" else getattr(answer, name) for name in schema.names}
        for answer in answers
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink)
    write_atomic(path, sink.getvalue().to_pybytes())


def _passages(hits: Sequence[Hit]) -> list[dict[str, Any]]:
    return [{"id": hit.passage.id, "source": hit.passage.source, "rank": hit.rank, "score": hit.score} for hit in hits]


def load_answers(path: Path) -> tuple[Answer, ...]:
    """Read what `save_answers` wrote; the passages come back without title, headings and text.

    Raises MissingError without a file, InputError when it is not such a table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not os.path.exists(path):
        raise MissingError(f"{path} does not exist; run the study or eval that writes it")
    try:
        table = pq.read_table(path)
        require_parquet_form(table.schema.metadata, Path(path))
        schema = answers_schema(timed="time" in table.schema.names)
        rows = table.select(schema.names).cast(schema).to_pylist()
    except (pa.ArrowInvalid, KeyError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"not a table of answers ({reason})", "write it again with trimtab eval", file=path) from None
    return tuple(
        Answer(
            **{name: value for name, value in row.items() if name not in ("reference", "passages")},
            reference=tuple(row["reference"]),
            hits=tuple(_hit(item) for item in row["passages"]),
        )
        for row in rows
    )


def _hit(item: dict[str, Any]) -> Hit:
    document = item["id"].rpartition("#")[0]
    passage = Passage(id=item["id"], document=document, title="", path=(), text="", source=item["source"])
    return Hit(passage=passage, rank=item["rank"], score=item["score"])
