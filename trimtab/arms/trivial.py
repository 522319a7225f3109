"""Baselines without a language model, which every arm should beat."""

from __future__ import annotations

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from trimtab.arms.linear import EMBEDDING_SHARE, embedding_seconds
from trimtab.arms.session import Session
from trimtab.base.errors import MissingError
from trimtab.base.grammar import SENTENCE
from trimtab.base.records import Answer, Document, Example, Generation, Prompt
from trimtab.base.task import Task
from trimtab.data.prompts import build_prompt
from trimtab.measurement.evaluate import Scorer, evaluate_prompts
from trimtab.measurement.metrics import has_abstained
from trimtab.retrieval.chunk import chunk_document
from trimtab.training.linear import Featurizer, term_vectorizer

AT_A_TIME = 256  # questions whose similarities to all texts are in memory at once
MOST_EMBEDDED = 4_000  # training questions
MOST_SENTENCES = 100_000
COPIED = 0.9  # of the values of a key: the share that stand in their questions, from which on the key is copied
_Path = tuple[str, ...]
_WORD = re.compile(r"\w+")

Similarities = Callable[[Sequence[str], Sequence[str]], Iterator[Any]]
"""Texts asked about and texts to compare with, to their similarities `[N, T]`, some questions at a time."""


def trivial_answers(
    train: Sequence[Example],
    test: Sequence[Example],
    task: Task,
    scorer: Scorer | None,
    *,
    embed: Featurizer | None = None,
    documents: Sequence[Document] = (),
) -> dict[str, tuple[Answer, ...]]:
    """Return the scored answers of each baseline to the test questions; names as in `grammar.TRIVIAL`.

    `nearest-meaning` needs `embed`, `nearest-sentence` documents and questions that are answered, and `known-values`
    training answers that are objects of JSON.
    """
    texts_by_arm = {"most-frequent": [most_frequent_answer(train, task)] * len(test)}
    if _abstains(task):
        texts_by_arm["always-unknown"] = [task.task.unknown] * len(test)
    texts_by_arm["nearest-answer"] = nearest_answers(train, test)
    if embed is not None:
        known = train if len(train) <= MOST_EMBEDDED else random.Random(0).sample(train, MOST_EMBEDDED)
        texts_by_arm["nearest-meaning"] = nearest_answers(known, test, embedded_by(embed))
    if documents and task.task.kind == "answer":
        texts_by_arm["nearest-sentence"] = nearest_sentences(documents, test)
    if known_values := _KnownValues(train).answers(test, texts_by_arm.get("nearest-meaning")):
        texts_by_arm["known-values"] = known_values
    prompts = [build_prompt(example, task.task.instruction) for example in test]

    def scored(texts: Sequence[str]) -> tuple[Answer, ...]:
        def answer(asked: Sequence[Prompt]) -> list[Generation]:
            return [Generation(id=prompt.id, text=text) for prompt, text in zip(asked, texts, strict=True)]

        return evaluate_prompts(test, prompts, answer, task, split="test", seed=0, scorer=scorer)

    return {name: scored(texts) for name, texts in texts_by_arm.items()}


def rule_count(session: Session) -> int:
    """Return the number of baselines whose answers are scored, but `known-values`, which depends on the answers."""
    task = session.task
    finds = bool(session.workspace.documents) and task.task.kind == "answer"
    return 2 + _abstains(task) + (meaning_seconds(session) is not None) + finds


def meaning_seconds(session: Session) -> float | None:
    """Return the predicted seconds of `nearest-meaning`, from a few rows; None without an embedding model on this
    machine, and where it would take more than EMBEDDING_SHARE of the budget.
    """
    workspace, budget = session.workspace, session.task.budget_seconds
    train, test = workspace.training_rows("linear"), workspace.splits["test"]
    try:
        seconds = embedding_seconds(session) * (min(len(train), MOST_EMBEDDED) + len(test))
    except MissingError:
        return None
    return seconds if budget is None or seconds <= EMBEDDING_SHARE * budget else None


def most_frequent_answer(train: Sequence[Example], task: Task) -> str:
    """Return the most frequent answer of the training rows, the first of equals; abstaining does not count."""
    answers = [example.references[0] for example in train]
    answered = [answer for answer in answers if not (_abstains(task) and has_abstained(answer, task.task.unknown))]
    return Counter(answered or answers).most_common(1)[0][0]


def by_words(asked: Sequence[str], texts: Sequence[str]) -> Iterator[Any]:
    """Yield similarities `[N, T]`: the cosine of words (TF-IDF, as in `linear`)."""
    vectorizer = term_vectorizer()
    try:
        texts_TF = vectorizer.fit_transform(texts)
    except ValueError:  # no text has a word of at least two letters
        yield np.zeros((len(asked), len(texts)))
        return
    asked_NF = vectorizer.transform(asked)
    for start in range(0, len(asked), AT_A_TIME):
        yield (asked_NF[start : start + AT_A_TIME] @ texts_TF.T).toarray()


def embedded_by(embed: Featurizer) -> Similarities:
    """Return the similarities of embeddings of length 1."""

    def similarities(asked: Sequence[str], texts: Sequence[str]) -> Iterator[Any]:
        yield embed(asked) @ embed(texts).T

    return similarities


def nearest_answers(
    train: Sequence[Example], test: Sequence[Example], similarities: Similarities = by_words
) -> list[str]:
    """Return, for each test question, the answer of the most similar training question, the first of equals."""
    places = _nearest([example.input for example in test], [example.input for example in train], similarities)
    return [train[place].references[0] for place in places]


def nearest_sentences(documents: Sequence[Document], test: Sequence[Example]) -> list[str]:
    """Return, for each test question, the sentence of the documents (at most MOST_SENTENCES of them) that shares the
    most words with it; empty without sentences."""
    sentences = [passage.text for document in documents for passage in chunk_document(document, words=SENTENCE)]
    if not sentences:
        return [""] * len(test)
    places = _nearest([example.input for example in test], sentences[:MOST_SENTENCES], by_words)
    return [sentences[place] for place in places]


def _nearest(asked: Sequence[str], texts: Sequence[str], similarities: Similarities) -> list[int]:
    return [place for alike_NT in similarities(asked, texts) for place in np.argmax(alike_NT, axis=1).tolist()]


class _KnownValues:
    """Objects of JSON from a dictionary: which values the training questions hold word for word, by key."""

    def __init__(self, train: Sequence[Example]) -> None:
        self._train = train
        objects = [_as_object(example.references[0]) for example in train]
        # Of objects that are alike but for the values that are copied from questions: those values by path of keys.
        self._values: dict[str, dict[_Path, set[str]]] = defaultdict(lambda: defaultdict(set))
        self._copied: set[_Path] = set()
        if None in objects:
            return
        seen, held = Counter[_Path](), Counter[_Path]()
        for example, found in zip(train, objects, strict=True):
            for path, value in _texts(found or {}):
                seen[path] += 1
                held[path] += _holds(example.input, value)
        self._copied = {path for path, count in seen.items() if held[path] >= COPIED * count}
        for found in objects:
            shape = self._shape(found or {})
            for path, value in _texts(found or {}):
                if path in self._copied:
                    self._values[shape][path].add(value)

    def answers(self, test: Sequence[Example], nearest: Sequence[str] | None) -> list[str]:
        """Return an answer for each test question: the object of the nearest training question without copied values,
        and the longest known value of each key that the test question holds; none where not all training answers are
        objects, or none copies a value."""
        if not self._copied:
            return []
        pairs = zip(test, nearest or nearest_answers(self._train, test), strict=True)
        return [self._answer(example.input, answer) for example, answer in pairs]

    def _answer(self, question: str, nearest: str) -> str:
        shape = self._shape(_as_object(nearest) or {})
        answer = json.loads(shape)
        for path, values in self._values[shape].items():
            known = max((value for value in values if _holds(question, value)), key=len, default=None)
            if known is not None:
                part = answer
                for key in path[:-1]:
                    part = part.setdefault(key, {})
                part[path[-1]] = known
        return json.dumps(answer, ensure_ascii=False)

    def _shape(self, found: dict[str, Any]) -> str:
        """Return an object as JSON without copied values."""

        def kept(part: dict[str, Any], path: _Path) -> dict[str, Any]:
            return {
                key: kept(value, (*path, key)) if isinstance(value, dict) else value
                for key, value in part.items()
                if not (isinstance(value, str) and (*path, key) in self._copied)
            }

        return json.dumps(kept(found, ()), ensure_ascii=False, sort_keys=True)


def _as_object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _texts(part: dict[str, Any], path: _Path = ()) -> Iterator[tuple[_Path, str]]:
    """Yield the texts of an object, each with the keys that lead to it."""
    for key, value in part.items():
        if isinstance(value, dict):
            yield from _texts(value, (*path, key))
        elif isinstance(value, str):
            yield (*path, key), value


def _holds(question: str, value: str) -> bool:
    """True if the question holds the value as whole words, whatever their case."""
    return len(_words(value)) > 2 and _words(value) in _words(question)


@lru_cache(maxsize=65536)
def _words(text: str) -> str:
    return f" {' '.join(_WORD.findall(text.casefold()))} "


def _abstains(task: Task) -> bool:
    return task.task.kind == "answer" and bool(task.task.unknown.strip())
