"""Baselines without a model, which every arm should beat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from trimtab.base.records import Answer, Example, Generation, Prompt
from trimtab.base.task import Task
from trimtab.data.prompts import build_prompt
from trimtab.measurement.evaluate import Scorer, evaluate_prompts
from trimtab.measurement.metrics import has_abstained
from trimtab.training.linear import term_vectorizer

AT_A_TIME = 256  # questions whose similarities to all training questions are in memory at once


def trivial_answers(
    train: Sequence[Example], test: Sequence[Example], task: Task, scorer: Scorer | None
) -> dict[str, tuple[Answer, ...]]:
    """Return the scored answers of each baseline to the test questions; names as in `grammar.TRIVIAL`."""
    texts_by_arm = {"most-frequent": [most_frequent_answer(train, task)] * len(test)}
    if _abstains(task):
        texts_by_arm["always-unknown"] = [task.task.unknown] * len(test)
    texts_by_arm["nearest-answer"] = nearest_answers(train, test)
    prompts = [build_prompt(example, task.task.instruction) for example in test]

    def scored(texts: Sequence[str]) -> tuple[Answer, ...]:
        def answer(asked: Sequence[Prompt]) -> list[Generation]:
            return [Generation(id=prompt.id, text=text) for prompt, text in zip(asked, texts, strict=True)]

        return evaluate_prompts(test, prompts, answer, task, split="test", seed=0, scorer=scorer)

    return {name: scored(texts) for name, texts in texts_by_arm.items()}


def most_frequent_answer(train: Sequence[Example], task: Task) -> str:
    """Return the most frequent answer of the training rows, the first of equals; abstaining does not count."""
    answers = [example.references[0] for example in train]
    answered = [answer for answer in answers if not (_abstains(task) and has_abstained(answer, task.task.unknown))]
    return Counter(answered or answers).most_common(1)[0][0]


def nearest_answers(train: Sequence[Example], test: Sequence[Example]) -> list[str]:
    """Return, for each test question, the answer of the most similar training question, the first of equals.

    Similarity is the cosine of their words (TF-IDF, as in `linear`) for every task, even with embeddings at hand:
    without a model or time, the baseline is free and the same whichever arms run beside it.
    """
    vectorizer = term_vectorizer()
    try:
        train_TF = vectorizer.fit_transform([example.input for example in train])
    except ValueError:  # no text has a word of at least two letters
        return [train[0].references[0]] * len(test)
    test_NF = vectorizer.transform([example.input for example in test])
    nearest: list[int] = []
    for start in range(0, len(test), AT_A_TIME):
        alike_NT = (test_NF[start : start + AT_A_TIME] @ train_TF.T).toarray()
        nearest += np.argmax(alike_NT, axis=1).tolist()
    return [train[place].references[0] for place in nearest]


def _abstains(task: Task) -> bool:
    return task.task.kind == "answer" and bool(task.task.unknown.strip())
