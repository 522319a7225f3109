"""Models of which only the last layers move, rows for them, and objectives over these."""

from __future__ import annotations

import random

import pytest
import torch
from tiny_models import VOCABULARY, base_of, random_rows

from trimtab.base.records import Encoded
from trimtab.model.adapters.apply import unfreeze
from trimtab.model.classifier import ClassificationHead
from trimtab.training.batch import TrainingRow
from trimtab.training.classification import ClassificationObjective, label_rows
from trimtab.training.judged_answers import JudgedAnswers
from trimtab.training.preference import PreferenceObjective
from trimtab.training.sft import SupervisedObjective

BATCH = 6


def deep(family="llama", layers=2, dtype=torch.float32):
    """Four layers, of which the last ones move."""
    base = base_of(family, dtype, pairs_of_layers=2)
    unfreeze(base, "freeze", layers=layers)
    return base


def some_rows(count=15, seed=0):
    """Rows of which a few begin with the same instruction, and the last is the first once more."""
    draw = random.Random(seed)
    instruction = tuple(draw.randrange(3, VOCABULARY) for _ in range(20))
    rows = random_rows(count - 1, seed)
    for number in range(0, count - 1, 3):
        one = rows[number].encoded
        rows[number] = TrainingRow(
            encoded=Encoded(ids=(*instruction, *one.ids), trained=(False,) * len(instruction) + one.trained)
        )
    return [*rows, rows[0]]


def label_objective(base, rows, **more):
    labelled = label_rows(((row.encoded.ids, len(row.encoded.ids) % 3, 1.0) for row in rows), 3)
    return ClassificationObjective(
        labelled, ClassificationHead(("a", "b", "c"), 32, seed=1), batch=BATCH, seed=0, **more
    )


def judged(rows):
    """Pairs of answers to one prompt, which the better one begins with a token of its own."""
    sides = []
    for row in rows:
        begins = row.encoded.trained.index(True)
        prompt, answer = row.encoded.ids[:begins], row.encoded.ids[begins:]
        trained = (False,) * begins + (True,) * (len(answer) + 1)
        sides.append([Encoded(ids=(*prompt, first, *answer), trained=trained) for first in (7, 8)])
    return [JudgedAnswers(chosen=good, rejected=bad) for good, bad in sides]


OBJECTIVES = {
    "sft": lambda base, rows, **more: SupervisedObjective(rows, batch=BATCH, seed=0, **more),
    "head": label_objective,
    **{
        name: lambda base, rows, name=name, **more: PreferenceObjective(
            base, judged(rows), name, batch=BATCH, seed=0, **more
        )
        for name in ("dpo", "simpo", "kto")
    },
}


def assert_alike(ours, theirs):
    for (loss, norm), (other, other_norm) in zip(ours, theirs, strict=True):
        assert loss == pytest.approx(other, abs=1e-4)
        assert norm == pytest.approx(other_norm, abs=1e-3)
