"""The arm without a language model: what is saved answers as what was fitted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trimtab.training.linear import load_linear, train_linear

CITIES = ["Aalen", "Bonn", "Celle", "Dachau", "Emden"]


def embed(texts: list[str]) -> np.ndarray:
    return np.array(
        [[len(text), text.count("e"), text.count("n"), text.count("a")] for text in texts], dtype=np.float32
    )


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("features", ["tfidf", "embedding"])
def test_the_saved_model_answers_as_the_fitted_one(tmp_path: Path, classes: int, features: str) -> None:
    labels = [CITIES[number % classes] for number in range(60)]
    texts = [f"item {number * 37 % 101} of {label}" for number, label in enumerate(labels)]
    if features == "embedding":  # every word once: TF-IDF has nothing to go by
        texts = [f"x{number}" + "e" * (number % classes) for number in range(60)]
    fitted = train_linear(texts[:40], labels[:40], texts[40:], labels[40:], embed)
    assert fitted.features == features
    fitted.save(tmp_path)
    loaded = load_linear(tmp_path)
    assert np.array_equal(loaded.probabilities(texts, embed), fitted.probabilities(texts, embed))
    chosen = [loaded.labels[place] for place in fitted.probabilities(texts[40:], embed).argmax(axis=1)]
    assert np.mean([a == b for a, b in zip(chosen, labels[40:], strict=True)]) == fitted.dev_accuracy
