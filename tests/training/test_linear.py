"""The arm without a language model: what is saved answers as what was fitted, and every trial is told."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from trimtab.base.errors import InputError
from trimtab.training.linear import PENALTIES, load_linear, train_linear

pytestmark = pytest.mark.no_kernels

CITIES = ["Aalen", "Bonn", "Celle", "Dachau", "Emden"]


def embed(texts: list[str]) -> np.ndarray:
    return np.array(
        [[len(text), text.count("e"), text.count("n"), text.count("a")] for text in texts], dtype=np.float32
    )


def rows_that_only(features: str, classes: int, count: int = 60) -> tuple[list[str], list[str]]:
    """Texts whose labels show in this kind of features and in no other, and the labels."""
    labels = [CITIES[number % classes] for number in range(count)]
    if features == "tfidf":
        return [f"item {number * 37 % 101} of {label}" for number, label in enumerate(labels)], labels
    chance = random.Random(0)  # letters by chance; how many of them is what tells
    return ["".join(chance.choices("bcdfghklmp", k=20 + 15 * (number % classes))) for number in range(count)], labels


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("features", ["tfidf", "embedding"])
def test_the_saved_model_answers_as_the_fitted_one(tmp_path: Path, classes: int, features: str) -> None:
    texts, labels = rows_that_only(features, classes)
    fitted, _ = train_linear(texts[:40], labels[:40], texts[40:], labels[40:], embed)
    assert fitted.features == features
    fitted.save(tmp_path)
    loaded = load_linear(tmp_path)
    assert np.array_equal(loaded.probabilities(texts, embed), fitted.probabilities(texts, embed))
    chosen = [loaded.labels[place] for place in fitted.probabilities(texts[40:], embed).argmax(axis=1)]
    assert np.mean([a == b for a, b in zip(chosen, labels[40:], strict=True)]) == fitted.dev_accuracy


@pytest.mark.parametrize("given", [embed, None])
def test_every_choice_is_a_trial_and_the_first_of_the_best_is_kept(given) -> None:
    texts, labels = rows_that_only("embedding", 5)
    fitted, trials = train_linear(texts[:40], labels[:40], texts[40:], labels[40:], given)
    kinds = ["tfidf", *(["embedding"] if given else [])]
    assert [(one.features, one.penalty) for one in trials] == [(kind, one) for kind in kinds for one in PENALTIES]
    best = max(trials, key=lambda one: one.dev_accuracy)
    assert (fitted.features, fitted.penalty, fitted.dev_accuracy) == (best.features, best.penalty, best.dev_accuracy)
    assert all(one.seconds > 0 for one in trials)


def test_a_trial_is_told_by_what_the_model_alone_would_score(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, labels = rows_that_only("tfidf", 5)
    labels = [*labels[:40], *(CITIES[(number * number) % 5] for number in range(20))]  # dev that cannot be learnt
    _, trials = train_linear(texts[:40], labels[:40], texts[40:], labels[40:], embed)
    for trial in trials:
        monkeypatch.setattr("trimtab.training.linear.PENALTIES", (trial.penalty,))
        monkeypatch.setattr("trimtab.training.linear.KINDS", (trial.features,))
        alone, _ = train_linear(texts[:40], labels[:40], texts[40:], labels[40:], embed)
        answers = alone.probabilities(texts[40:], embed).argmax(axis=1)
        right = [alone.labels[place] == label for place, label in zip(answers, labels[40:], strict=True)]
        assert trial.dev_accuracy == np.mean(right)


def test_without_dev_the_first_choice_is_kept() -> None:
    texts, labels = rows_that_only("embedding", 5)
    fitted, trials = train_linear(texts, labels, [], [], embed)
    assert (fitted.features, fitted.penalty) == (trials[0].features, trials[0].penalty)
    assert {one.dev_accuracy for one in trials} == {0.0}


def test_hidden_states_are_a_choice_where_they_are_given_whatever_their_scale(tmp_path: Path) -> None:
    texts, labels = rows_that_only("embedding", 5)
    noise = np.random.default_rng(0).normal(size=(len(texts), 8)) * 1e4

    def hidden(asked: list[str]) -> np.ndarray:  # what tells the labels apart is small beside the rest
        places = [texts.index(text) for text in asked]
        told = np.array([[len(text) == 20 + 15 * label for label in range(5)] for text in asked]) * 1e-2
        return np.hstack([noise[places] + 1e5, told, np.ones((len(asked), 1))]).astype(np.float64)

    fitted, trials = train_linear(texts[:40], labels[:40], texts[40:], labels[40:], None, hidden)
    assert {one.features for one in trials} == {"tfidf", "hidden"}
    assert (fitted.features, fitted.dev_accuracy) == ("hidden", 1.0)
    fitted.save(tmp_path, made_by="a base")
    loaded = load_linear(tmp_path)
    assert loaded.made_by == "a base"
    chances = loaded.probabilities(texts[40:], hidden)
    assert [loaded.labels[place] for place in chances.argmax(axis=1)] == labels[40:]
    with pytest.raises(ValueError, match="pass their featurizer"):
        loaded.probabilities(texts[40:], None)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("labels", ["a"]),
        ("labels", 1),
        ("features", "poem"),
        ("vocabulary", {"a": 10**12}),
        ("more", 1),
        ("penalty", "x"),
    ],
)
def test_a_saved_model_that_is_damaged_is_refused_in_one_line(tmp_path: Path, key: str, value: object) -> None:
    texts, labels = rows_that_only("tfidf", 2)
    train_linear(texts[:40], labels[:40], [], [], None)[0].save(tmp_path)
    file = tmp_path / "linear.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(InputError, match=r"damaged \(") as refused:
        load_linear(tmp_path)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("damage", ["cut", "other", "labels", "words", "list"])
def test_a_saved_model_that_is_damaged_is_named(tmp_path: Path, damage: str) -> None:
    texts, labels = ["red apple", "green pear", "red cherry", "green kiwi"], ["a", "b", "a", "b"]
    train_linear(texts, labels, [], [], None)[0].save(tmp_path)
    weights, plain = tmp_path / "linear.safetensors", tmp_path / "linear.json"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:50])
    elif damage == "other":
        save_file({"other": np.zeros(2)}, weights)
    elif damage == "list":
        plain.write_text("[]")
    else:
        changed = {"labels": ["a", "b", "c"]} if damage == "labels" else {"vocabulary": {"red": 0}}
        plain.write_text(json.dumps({**json.loads(plain.read_text()), **changed}))
    with pytest.raises(InputError, match=r"damaged \("):
        load_linear(tmp_path)
