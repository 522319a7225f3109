"""Compares a reader (a span head on the embedding model's encoder, trained on a task's own rows) with the sentence that
answers.

python benchmarks/reader.py TASK … [--epochs 6] [--longest 384]    # → results/reader.json: an entry for each task
                                                                   # (what `benchmarks/studies.py` lays out)

The reader sees the best three passages of the product's own search and gives the span with the highest sum of start
and end scores, or abstains where the score of no answer is higher by more than a threshold that dev chooses. It is
trained on the passages that hold a row's reference, each beside one that was found and does not hold it. Dev chooses
the epoch. It is not part of the product; this file holds the reason.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from trimtab.arms.workspace import Workspace, open_workspace
from trimtab.base.files import read_json, write_json
from trimtab.base.machine import describe_machine, versions
from trimtab.base.records import Example, Passage
from trimtab.base.task import load_task
from trimtab.measurement.contains import facts_stand_in
from trimtab.measurement.evaluate import score_text
from trimtab.model.catalog import resolve
from trimtab.retrieval.embed import Embedder
from trimtab.retrieval.index import Index
from trimtab.retrieval.search import hybrid_search

RESULT = Path(__file__).resolve().parent / "results" / "reader.json"
PASSAGES, ANSWER = 3, 24  # passages read, tokens of a span
BATCH, RATE, SEED = 16, 2e-4, 0
THRESHOLDS = (
    -8.0,
    -4.0,
    -2.0,
    0.0,
    2.0,
    4.0,
    8.0,
    float("inf"),
)  # how much higher no answer must score; inf never abstains
SHOWN = 10


def shown_text(passage: Passage) -> str:
    """Title, headings and text."""
    return " ".join((passage.title, *passage.path, passage.text))


class Reader:
    """The encoder with its head."""

    def __init__(self, folder: Path, longest: int) -> None:
        torch.manual_seed(SEED)
        self.longest = longest
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForQuestionAnswering.from_pretrained(folder)

    def encode(self, pairs: Sequence[tuple[str, str]]) -> Any:
        """Questions and passages as a batch; only the passage is cut."""
        questions, texts = zip(*pairs, strict=True)
        return self.tokenizer(
            list(questions),
            list(texts),
            truncation="only_second",
            max_length=self.longest,
            padding=True,
            return_offsets_mapping=True,
            return_tensors="pt",
        )

    def loss(self, batch: Sequence[tuple[str, str, int, int]]) -> torch.Tensor:
        """Mean cross-entropy of start and end; a span of (-1, -1) is no answer, the first token."""
        encoded = self.encode([(question, text) for question, text, *_ in batch])
        offsets = encoded.pop("offset_mapping")
        starts, ends = [], []
        for number, (_, _, first, last) in enumerate(batch):
            inside = [
                place
                for place, kind in enumerate(encoded.sequence_ids(number))
                if kind == 1 and offsets[number][place][1] > first and offsets[number][place][0] < last
            ]
            starts.append(inside[0] if first >= 0 and inside else 0)
            ends.append(inside[-1] if first >= 0 and inside else 0)
        loss: torch.Tensor = self.model(
            **encoded, start_positions=torch.tensor(starts), end_positions=torch.tensor(ends)
        ).loss
        return loss

    @torch.inference_mode()
    def answer(self, question: str, texts: Sequence[str]) -> tuple[str, float]:
        """The best span of the texts, and by how much no answer scores higher."""
        encoded = self.encode([(question, text) for text in texts])
        offsets = encoded.pop("offset_mapping")
        out = self.model(**encoded)
        best, span, none = -float("inf"), "", float("inf")
        for number, text in enumerate(texts):
            start, end = out.start_logits[number], out.end_logits[number]
            none = min(none, float(start[0] + end[0]))
            inside = torch.tensor([kind == 1 for kind in encoded.sequence_ids(number)])
            scores = start[:, None] + end[None, :]
            allowed = torch.ones_like(scores, dtype=torch.bool).triu() & ~torch.ones_like(
                scores, dtype=torch.bool
            ).triu(ANSWER)
            scores = scores.masked_fill(~(allowed & inside[:, None] & inside[None, :]), -float("inf"))
            if float(scores.max()) > best:
                best = float(scores.max())
                first, last = divmod(int(scores.argmax()), scores.shape[1])
                span = text[int(offsets[number][first][0]) : int(offsets[number][last][1])]
        return span, none - best


def spans(rows: Sequence[Example], texts: dict[str, list[str]], unknown: str) -> list[tuple[str, str, int, int]]:
    """Training pairs: each passage found for a row that holds its reference word for word, and one that does not."""
    found = []
    for row in rows:
        held = [(text, text.casefold().find(row.references[0].casefold())) for text in texts[row.id]]
        with_it = [(text, place) for text, place in held if place >= 0 and row.references[0] != unknown]
        found += [(row.input, text, place, place + len(row.references[0])) for text, place in with_it]
        found += [(row.input, text, -1, -1) for text, place in held if place < 0][:1]
    return found


def looked_up(workspace: Workspace) -> dict[str, list[str]]:
    """Return, for every row, the texts of its best passages."""
    rows = [row for part in workspace.splits.values() for row in part]
    with tempfile.TemporaryDirectory() as place:
        index = Index.open(Path(place), Embedder(resolve(workspace.task.base.embedding)))
        index.update(workspace.documents)
        hits = hybrid_search(index, [row.input for row in rows], PASSAGES)
    return {row.id: [shown_text(hit.passage) for hit in found] for row, found in zip(rows, hits, strict=True)}


def measured(file: Path, epochs: int, longest: int) -> dict[str, Any]:
    """Train the reader of one task for so many epochs, on questions with passages of at most `longest` tokens, and
    ask it."""
    workspace = open_workspace(load_task(file))
    task, unknown = workspace.task, workspace.task.task.unknown
    texts, reader = looked_up(workspace), Reader(resolve(workspace.task.base.embedding), longest)
    pairs = spans(workspace.splits["train"], texts, unknown)
    optimizer = torch.optim.AdamW(reader.model.parameters(), lr=RATE, weight_decay=0.01)
    steps = epochs * -(-len(pairs) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / (0.1 * steps)) * max(0.0, 1 - step / steps)
    )
    chance, began, best, told = random.Random(SEED), time.perf_counter(), -1.0, {}

    def asked(part: str) -> list[tuple[Example, str, float]]:
        reader.model.eval()
        return [(row, *reader.answer(row.input, texts[row.id])) for row in workspace.splits[part]]

    def right(given: Sequence[tuple[Example, str, float]], threshold: float) -> float:
        return fmean(
            bool(score_text(row, unknown if behind > threshold else text, task)) for row, text, behind in given
        )

    for epoch in range(epochs):
        reader.model.train()
        chance.shuffle(pairs)
        for first in range(0, len(pairs), BATCH):
            loss = reader.loss(pairs[first : first + BATCH])
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(reader.model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        dev = asked("dev")
        threshold = max(THRESHOLDS, key=lambda value: right(dev, value))
        if right(dev, threshold) > best:
            best = right(dev, threshold)
            given = asked("test")
            answers = [(row, unknown if behind > threshold else text) for row, text, behind in given]
            told = {
                "epoch": epoch + 1,
                "dev": best,
                "right": right(given, threshold),
                "abstained": fmean(text == unknown for _, text in answers),
                "invented": fmean(
                    text != unknown and not any(facts_stand_in(one, text, row.input) for one in texts[row.id])
                    for row, text in answers
                ),
                "words": fmean(len(text.split()) for _, text in answers),
                "shown": [[row.input, list(row.references), text] for row, text in answers[:SHOWN]],
            }
    began_one = time.perf_counter()
    for row in workspace.splits["test"][:60]:
        reader.answer(row.input, texts[row.id])
    return {
        "questions": len(workspace.splits["test"]),
        "spans": len(pairs),
        "train_seconds": began_one - began,
        "seconds_a_question": (time.perf_counter() - began_one) / min(60, len(workspace.splits["test"])),
        **told,
    }


def main() -> None:
    """Measure each task that was named."""
    result = read_json(RESULT) if RESULT.is_file() else {"tasks": {}}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", metavar="TASK")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--longest", type=int, default=384, help="tokens of question and passage")
    options = parser.parse_args()
    for name in options.tasks:
        found = measured(Path(name), options.epochs, options.longest)
        found |= {"epochs": options.epochs, "longest": options.longest}
        print(name, {key: value for key, value in found.items() if key != "shown"}, flush=True)
        result["tasks"][load_task(Path(name)).task.name] = found
        result |= {"machine": describe_machine(), "versions": versions()}
        write_json(RESULT, result)


if __name__ == "__main__":
    main()
