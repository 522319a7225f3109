"""Compares features for the `linear` arm, and settings of retrieval.

    python benchmarks/embeddings.py --cache FOLDER    # → results/embeddings.json, from what the cache holds

Retrieval: recall@3 and MRR@10 of the bundled handbook and XQuAD, over sizes of passages and weights of the two
searches. Linear: test accuracy on five closed sets, each split several times by the program's own code, over
features and penalties; then what each menu of features would have come to, chosen on dev as the arm does.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from linear_menus import compare, fit_all, letter_vectorizer

from trimtab.arms.workspace import open_workspace
from trimtab.base.config import SplitTable
from trimtab.base.files import sha256_text, write_json
from trimtab.base.machine import describe_machine, versions
from trimtab.base.records import Encoded, Example, Hit, Message
from trimtab.base.task import load_task
from trimtab.data.prompts import ChatEncoder, build_prompt
from trimtab.data.split import assign_splits
from trimtab.measurement.ranking import holds
from trimtab.model.catalog import resolve
from trimtab.model.fast.patch import accelerate
from trimtab.model.load import Base, load_base
from trimtab.retrieval.embed import Embedder
from trimtab.retrieval.index import Index
from trimtab.retrieval.search import hybrid_search
from trimtab.training.batch import TrainingRow, micro_batches, pack_rows
from trimtab.training.linear import word_vectorizer

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
RESULT = ROOT / "benchmarks" / "results" / "embeddings.json"
EMBEDDING, BASE = "minilm-l6", "smollm2-135m-q4"
SIZES, WEIGHTS, DEPTH = (60, 120, 240), (0.0, 0.25, 0.5, 0.75, 1.0), 10
DOCUMENTS = ("handbook", "xquad")
SEEDS = {"banking77": 2, "style subjects": 5}  # the large one takes long, the small one is uncertain
USUAL_SEEDS, TIMED = 3, 100
Array = np.ndarray[Any, Any]


# ---- closed sets


@dataclass(frozen=True, kw_only=True)
class ClosedSet:
    """Rows with one label each, and what a model is told before each text."""

    name: str
    instruction: str
    rows: tuple[Example, ...]


def rows_of(items: Iterator[tuple[str, str, str | None]]) -> tuple[Example, ...]:
    """Examples from text, label and group."""
    return tuple(
        Example(
            id=str(number),
            messages=(Message(role="user", content=text),),
            references=(label,),
            group=group,
        )
        for number, (text, label, group) in enumerate(items)
    )


def bundled(name: str, file: str) -> list[dict[str, Any]]:
    """The rows of a bundled example."""
    text = (files("trimtab.demos") / name / file).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def banking77(source: Path) -> ClosedSet:
    """Return as many messages as `docs/make_real_data.py` lays out, drawn from the public training rows."""
    with open(source / "banking77.train.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    chosen = random.Random(0).sample(rows, 1_950)
    kept = (row for row in chosen if sum(other["category"] == row["category"] for other in chosen) > 5)
    items = ((row["text"], row["category"].replace("_", " "), None) for row in kept)
    instruction = "You sort messages of a bank's customers. Answer with the topic of the message, as a short name."
    return ClosedSet(name="banking77", instruction=instruction, rows=rows_of(items))


def xquad_titles(source: Path) -> ClosedSet:
    """Return the article (of 48) of each question; questions about one paragraph stay together."""
    articles = json.loads((source / "xquad.en.json").read_text(encoding="utf-8"))["data"]
    items = (
        (question["question"], article["title"].replace("_", " "), sha256_text(paragraph["context"]))
        for article in articles
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    )
    return ClosedSet(name="xquad titles", instruction="Name what the question is about.", rows=rows_of(items))


def closed_sets(source: Path) -> list[ClosedSet]:
    """Five closed sets; three are made of the bundled examples."""
    spam = ((row["input"], row["label"], row["group"]) for row in bundled("spam", "messages.jsonl"))
    topics = ((row["question"], row["topic"], row["group"]) for row in bundled("handbook", "questions.jsonl"))
    subjects = ((row["input"], row["subject"], row["body"]) for row in bundled("style", "pairs.jsonl"))
    told = {
        "spam": "Is this message spam, promo (honest advertising) or ham (a wanted message)?",
        "handbook topics": "Name the topic of the question.",
        "style subjects": "Does this Python function work on text, numbers, lists or records?",
    }
    made = {"spam": spam, "handbook topics": topics, "style subjects": subjects}
    own = [ClosedSet(name=name, instruction=told[name], rows=rows_of(items)) for name, items in made.items()]
    return [banking77(source), xquad_titles(source), *own]


def splits_of(data: ClosedSet, seed: int) -> dict[str, list[int]]:
    """The row numbers of train, dev and test, drawn by the program's own code."""
    share = 300 / 1_950 if data.name == "banking77" else 0.25
    with tempfile.TemporaryDirectory() as folder:
        table = SplitTable(dev=0.0769 if data.name == "banking77" else 0.15, test=share, seed=seed)
        parts = assign_splits(data.rows, (), table, Path(folder) / "splits.parquet", "classify")
    return {name: [int(row.id) for row in part] for name, part in parts.items()}


# ---- features


class Models:
    """The embedding and the base, each loaded when first needed."""

    @cached_property
    def embedder(self) -> Embedder:
        """The embedding."""
        return Embedder(resolve(EMBEDDING))

    @cached_property
    def base(self) -> Base:
        """The base model."""
        return accelerate(load_base(resolve(BASE)))


def hidden(base: Base, prompts: Sequence[Sequence[int]]) -> dict[str, Array]:
    """Mean and last token of a middle and of the last layer's hidden states, `[prompts, D]` each."""
    caught: dict[str, torch.Tensor] = {}
    model = base.model.base_model

    def keep(_: Any, __: Any, out: Any) -> None:
        caught["middle"] = (out[0] if isinstance(out, tuple) else out).reshape(-1, base.model.config.hidden_size)

    handle = model.layers[len(model.layers) // 2 - 1].register_forward_hook(keep)
    units = [
        (TrainingRow(encoded=Encoded(ids=tuple(ids), trained=(False,) * len(ids)), scored=((len(ids) - 1, number),)),)
        for number, ids in enumerate(prompts)
    ]
    found = {f"{how} of {layer}": {} for how in ("mean", "end") for layer in ("middle", "last")}
    with torch.no_grad():
        for part in micro_batches(units, shared=False):
            batch = pack_rows([row for unit in part for row in unit], shared=False)
            caught["last"] = base.hidden(batch.ids_N, batch.positions_N, batch.layout)
            begins = [0, *(batch.scored_M + 1).tolist()]
            for place, number in enumerate(batch.labels_M.tolist()):
                for layer, states_ND in caught.items():
                    own_LD = states_ND[begins[place] : begins[place + 1]].float()
                    found[f"mean of {layer}"][number] = own_LD.mean(0).numpy()
                    found[f"end of {layer}"][number] = own_LD[-1].numpy()
    handle.remove()
    return {name: np.stack([rows[number] for number in range(len(prompts))]) for name, rows in found.items()}


def features(data: ClosedSet, models: Models, cache: Path) -> dict[str, Array]:
    """The dense features of every row of a closed set, from the cache where they are."""
    file = cache / f"{data.name}.npz"
    if not file.is_file():
        texts = [row.input for row in data.rows]
        encoder = ChatEncoder(models.base.tokenizer)
        prompts = [encoder.prompt(build_prompt(row, data.instruction).messages) for row in data.rows]
        np.savez(file, embedding=models.embedder.encode(texts), **hidden(models.base, prompts))
    with np.load(file) as held:
        return dict(held)


def seconds_a_text(data: ClosedSet, models: Models) -> dict[str, float]:
    """Processor seconds a text of every kind of feature, as multiples of the embedding's, texts one by one."""
    some = data.rows[:TIMED]
    texts = [row.input for row in some]
    encoder = ChatEncoder(models.base.tokenizer)
    words, letters = word_vectorizer().fit(texts), letter_vectorizer().fit(texts)

    def prompt(row: Example) -> Sequence[int]:
        return encoder.prompt(build_prompt(row, data.instruction).messages)

    ways: dict[str, Callable[[Example], object]] = {
        "words": lambda row: words.transform([row.input]),
        "letters": lambda row: letters.transform([row.input]),
        "embedding": lambda row: models.embedder.encode([row.input]),
        "hidden": lambda row: hidden(models.base, [prompt(row)]),
    }
    taken = {}
    for name, way in ways.items():
        way(some[0])
        began = time.process_time()
        for row in some:
            way(row)
        taken[name] = (time.process_time() - began) / len(some)
    return {name: round(seconds / taken["embedding"], 3) for name, seconds in taken.items()}


# ---- retrieval


class Remembered:
    """An embedding that embeds no text twice."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder, self.digest = embedder, embedder.digest
        self._held: dict[tuple[bool, str], Array] = {}

    def encode(self, texts: Sequence[str]) -> Array:
        """Embed passages as the embedder does, each text once."""
        return self._encode(texts, False)

    def encode_questions(self, texts: Sequence[str]) -> Array:
        """Embed questions as the embedder does, each text once."""
        return self._encode(texts, True)

    def _encode(self, texts: Sequence[str], asked: bool) -> Array:
        new = list(dict.fromkeys(text for text in texts if (asked, text) not in self._held))
        vectors = (self.embedder.encode_questions if asked else self.embedder.encode)(new)
        self._held.update(zip(((asked, text) for text in new), vectors, strict=True))
        return np.stack([self._held[asked, text] for text in texts]) if texts else vectors


def is_right(hit: Hit, example: Example) -> bool:
    """Return True if a passage of the right document holds the answer."""
    text = hit.passage.text.casefold()
    named = any(holds(hit.passage, name) for name in example.passages)
    return named and any(answer.casefold() in text for answer in example.references)


def retrieval(task_file: Path, embedder: Embedder) -> dict[str, Any]:
    """Recall@3 and MRR@10 of every size and weight, and their differences from the usual setting with paired
    standard errors."""
    workspace = open_workspace(load_task(task_file), refuse_leaks=False)
    unknown = workspace.task.task.unknown
    rows = [row for part in workspace.splits.values() for row in part if row.passages and row.references[0] != unknown]
    remembered, ranks = Remembered(embedder), {}
    for words in SIZES:
        index = Index.open(task_file.parent / f"index-{words}", remembered, words=words)
        index.update(workspace.documents)
        for weight in WEIGHTS:
            found = hybrid_search(index, [row.input for row in rows], DEPTH, vector_weight=weight)
            ranks[words, weight] = np.array(
                [
                    next((hit.rank for hit in hits if is_right(hit, row)), np.inf)
                    for hits, row in zip(found, rows, strict=True)
                ]
            )
    usual = ranks[120, 0.5]
    settings: list[dict[str, Any]] = []
    for (words, weight), places in ranks.items():
        settings.append({"words": words, "vector_weight": weight})
        for name, ours, theirs in (("recall@3", places <= 3, usual <= 3), ("mrr@10", 1 / places, 1 / usual)):
            gap = ours.astype(float) - theirs.astype(float)
            error = float(gap.std(ddof=1) / len(gap) ** 0.5)
            settings[-1][name] = round(float(ours.mean()), 4)
            settings[-1][f"{name} on usual"] = [round(float(gap.mean()), 4), round(error, 4)]
    return {"questions": len(rows), "documents": len(workspace.documents), "settings": settings}


def copy_demo(name: str, source: Path, folder: Path) -> Path:
    """The task file of a data set with documents, in a folder of its own."""
    place = folder / name
    place.mkdir(parents=True)
    if name == "handbook":
        own = Path(str(files("trimtab.demos") / name))
        shutil.copytree(own, place, dirs_exist_ok=True)
        return place / "trimtab.toml"
    shutil.copy(source / "xquad.en.json", place)
    shutil.copy(ROOT / "docs" / "xquad.toml", place)
    return place / "xquad.toml"


def kept(file: Path, make: Callable[[], Any]) -> Any:
    """Return the content of the file; it is made first if it is missing."""
    if not file.is_file():
        write_json(file, make())
        print(file.stem, "done", flush=True)
    return json.loads(file.read_text(encoding="utf-8"))


def fits_of(data: ClosedSet, models: Models, cache: Path) -> Any:
    """All fits of a closed set, from the cache where they are."""

    def make() -> dict[str, Any]:
        dense = features(data, models, cache)
        seeds = range(SEEDS.get(data.name, USUAL_SEEDS))
        splits = [fit_all(data.rows, splits_of(data, seed), dense) for seed in seeds]
        groups = [row.group or row.id for row in data.rows]
        return {"splits": splits, "groups": groups, "seconds": seconds_a_text(data, models)}

    return kept(cache / f"{data.name}.json", make)


def retrieval_of(name: str, source: Path, models: Models, cache: Path) -> Any:
    """The figures of a set with documents, from the cache where they are."""

    def make() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            return retrieval(copy_demo(name, source, Path(folder)), models.embedder)

    return kept(cache / f"retrieval {name}.json", make)


def main() -> None:
    """Parse the arguments, measure, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, default=SHARED, help="where the public files lie")
    parser.add_argument("--cache", type=Path, required=True, help="where features and fits are kept")
    parser.add_argument("--only", help="one set by name, to fill the cache")
    parser.add_argument("--cached", action="store_true", help="leave out the sets that the cache does not hold")
    chosen = parser.parse_args()
    chosen.cache.mkdir(parents=True, exist_ok=True)
    models, wanted = Models(), chosen.only
    fits = {
        data.name: fits_of(data, models, chosen.cache)
        for data in closed_sets(chosen.source)
        if wanted in (None, data.name) and (not chosen.cached or (chosen.cache / f"{data.name}.json").is_file())
    }
    looked_up = {
        name: retrieval_of(name, chosen.source, models, chosen.cache) for name in DOCUMENTS if wanted in (None, name)
    }
    if wanted is not None:
        return
    write_json(
        RESULT,
        {
            "embedding": EMBEDDING,
            "base": BASE,
            "machine": {**describe_machine(), "threads": torch.get_num_threads()},
            "versions": versions(),
            "retrieval": looked_up,
            "linear": compare(fits),
        },
    )


if __name__ == "__main__":
    main()
