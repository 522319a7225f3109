"""The arm without a language model: what is saved answers as what was fitted, and every trial is told."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from trimtab.base.errors import InputError
from trimtab.training.linear import (
    FIRST_PENALTY,
    KINDS,
    PENALTIES,
    LinearChoice,
    load_linear,
    split_columns,
    train_linear,
)

pytestmark = pytest.mark.no_kernels

CITIES = ["Aalen", "Bonn", "Celle", "Dachau", "Emden"]


def embed(texts: list[str]) -> np.ndarray:
    return np.array(
        [[len(text), text.count("e"), text.count("n"), text.count("a")] for text in texts], dtype=np.float32
    )


def rows_that_only(features: str, classes: int, count: int = 60) -> tuple[list[str], list[str]]:
    """Texts whose labels show in this kind of features and in no other, and the labels."""
    labels = [CITIES[number % classes] for number in range(count)]
    if features == "words":
        return [f"item {number * 37 % 101} of {label}" for number, label in enumerate(labels)], labels
    chance = random.Random(0)  # letters by chance; how many of them is what tells
    return ["".join(chance.choices("bcdfghklmp", k=20 + 15 * (number % classes))) for number in range(count)], labels


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("features", ["words", "embedding"])
def test_the_saved_model_answers_as_the_fitted_one(tmp_path: Path, classes: int, features: str) -> None:
    texts, labels = rows_that_only(features, classes)
    fitted, _ = train_linear(texts[:40], labels[:40], texts[40:], labels[40:], embed)
    assert fitted.choice.features == features
    fitted.save(tmp_path)
    loaded = load_linear(tmp_path)
    assert np.array_equal(loaded.probabilities(texts, embed), fitted.probabilities(texts, embed))
    chosen = [loaded.labels[place] for place in fitted.probabilities(texts[40:], embed).argmax(axis=1)]
    assert np.mean([a == b for a, b in zip(chosen, labels[40:], strict=True)]) == fitted.dev_score


@pytest.mark.parametrize("given", [embed, None])
def test_kinds_come_first_then_penalties_until_dev_falls_and_the_first_of_the_best_is_kept(given) -> None:
    texts, labels = rows_that_only("embedding", 5)
    fitted, trials = train_linear(texts[:40], labels[:40], texts[40:], labels[40:], given)
    kinds = [kind for kind in KINDS if "hidden" not in kind and (given or "embedding" not in kind)]
    first, ladder = trials[: len(kinds)], [trial for trial in trials[len(kinds) :] if not trial.choice.balanced]
    assert [trial.choice for trial in first] == [LinearChoice(features=kind) for kind in kinds]
    chosen = max(first, key=lambda trial: trial.dev_score)
    assert {trial.choice.features for trial in ladder} == {chosen.choice.features}
    climbed: dict[bool, list[float]] = {True: [chosen.dev_score], False: [chosen.dev_score]}
    for trial in ladder:
        climbed[trial.choice.penalty > FIRST_PENALTY].append(trial.dev_score)
    for scores in climbed.values():
        assert sorted(scores[:-1]) == scores[:-1], "each but the last is no worse than the one before it"
    assert {PENALTIES[3], PENALTIES[1]} <= {trial.choice.penalty for trial in ladder}
    best = max(trials, key=lambda trial: trial.dev_score)
    assert (fitted.choice, fitted.dev_score) == (best.choice, best.dev_score)
    assert all(trial.seconds > 0 for trial in trials)


def test_rare_labels_weigh_more_only_where_the_score_gains_by_it() -> None:
    chance = random.Random(0)
    labels = [("rare" if chance.random() < 0.1 else "usual") for _ in range(400)]
    texts = [  # a rare row says "odd" half of the time, a usual one in a tenth
        " ".join([chance.choice(CITIES), "odd" if chance.random() < (0.5 if label == "rare" else 0.1) else "even"])
        for label in labels
    ]

    def recall_of_rare(given, right):
        told = [a == b for a, b in zip(given, right, strict=True) if b == "rare"]
        return sum(told) / len(told)

    chosen = [
        train_linear(texts[:200], labels[:200], texts[200:], labels[200:], None, score=score)[0].choice.balanced
        for score in (None, recall_of_rare)
    ]
    assert chosen == [False, True]


def test_columns_of_an_input_are_read_apart_and_what_they_share_is_seen(tmp_path: Path) -> None:
    chance = random.Random(0)
    words = [f"word{number}" for number in range(400)]
    pairs, labels = [], []
    for number in range(300):  # right if the answer repeats a word of the question, which no word alone tells
        question = chance.sample(words, 4)
        pairs.append((" ".join(question), question[0] if number % 2 else chance.choice(words)))
        labels.append("right" if number % 2 else "wrong")
    texts = [f"Q: {question}\nA: {answer}." for question, answer in pairs]
    scores = {}
    for template in ((), ("Q: ", "\nA: ", ".")):
        fitted, _ = train_linear(texts[:200], labels[:200], texts[200:], labels[200:], None, template=template)
        scores[template] = fitted.dev_score
        fitted.save(tmp_path)
        loaded = load_linear(tmp_path)
        assert np.array_equal(loaded.probabilities(texts, None), fitted.probabilities(texts, None))
    assert scores[()] < 0.75 < 0.95 < scores["Q: ", "\nA: ", "."]


def test_columns_are_those_of_the_template_and_what_does_not_fit_it_stands_in_the_first() -> None:
    assert split_columns(["Q: a\nA: b.", "other"], ("Q: ", "\nA: ", ".")) == [["a", "other"], ["b", ""]]
    assert split_columns(["a\n\nb\n\nc"], ("", "\n\n", "")) == [["a"], ["b\n\nc"]]
    assert split_columns(["a", "b"], ()) == [["a", "b"]]


def test_choices_are_fitted_on_some_rows_and_the_chosen_one_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, labels = rows_that_only("words", 5)
    monkeypatch.setattr("trimtab.training.linear.CHOICE_ROWS", 20)
    some, trials = train_linear(texts[:40], labels[:40], texts[40:], labels[40:], None)
    assert trials[-1].choice == some.choice == max(trials[:-1], key=lambda trial: trial.dev_score).choice
    alone, _ = train_linear(texts[:40], labels[:40], texts[40:], labels[40:], None, fixed_choice=some.choice)
    assert np.array_equal(alone.weights_CF, some.weights_CF)


def test_a_trial_is_told_by_what_the_model_alone_would_score() -> None:
    texts, labels = rows_that_only("words", 5)
    labels = [*labels[:40], *(CITIES[(number * number) % 5] for number in range(20))]  # dev that cannot be learnt
    _, trials = train_linear(texts[:40], labels[:40], texts[40:], labels[40:], embed)
    for trial in trials:
        alone, _ = train_linear(texts[:40], labels[:40], texts[40:], labels[40:], embed, fixed_choice=trial.choice)
        answers = alone.probabilities(texts[40:], embed).argmax(axis=1)
        right = [alone.labels[place] == label for place, label in zip(answers, labels[40:], strict=True)]
        assert trial.dev_score == np.mean(right)


def test_without_dev_the_first_choice_is_kept() -> None:
    texts, labels = rows_that_only("embedding", 5)
    fitted, trials = train_linear(texts, labels, [], [], embed)
    assert [trial.choice for trial in trials] == [fitted.choice]
    assert trials[0].dev_score == 0.0


def test_hidden_states_are_a_choice_where_they_are_given_whatever_their_scale(tmp_path: Path) -> None:
    texts, labels = rows_that_only("embedding", 5)
    noise = np.random.default_rng(0).normal(size=(len(texts), 8)) * 1e4

    def hidden(asked: list[str]) -> np.ndarray:  # what tells the labels apart is small beside the rest
        places = [texts.index(text) for text in asked]
        told = np.array([[len(text) == 20 + 15 * label for label in range(5)] for text in asked]) * 1e-2
        return np.hstack([noise[places] + 1e5, told, np.ones((len(asked), 1))]).astype(np.float64)

    fitted, trials = train_linear(texts[:40], labels[:40], texts[40:], labels[40:], None, hidden)
    assert {trial.choice.features for trial in trials} == {"words", "words+letters", "hidden"}
    assert (fitted.choice.features, fitted.dev_score) == ("hidden", 1.0)
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
        ("choice", {"features": "poem", "penalty": 1.0, "balanced": False}),
        ("choice", {"features": "words", "penalty": "x", "balanced": False}),
        ("terms", [{"column": 0, "unit": "words", "vocabulary": {"a": 10**12}}]),
        ("terms", [{"column": 1, "unit": "words", "vocabulary": {"a": 0}}]),
        ("terms", []),
        ("template", ["a"]),
        ("template", ["", " ", ""]),
        ("more", 1),
    ],
)
def test_a_saved_model_that_is_damaged_is_refused_in_one_line(tmp_path: Path, key: str, value: object) -> None:
    texts, labels = rows_that_only("words", 2)
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
        few = [{"column": 0, "unit": "words", "vocabulary": {"red": 0}}]
        changed = {"labels": ["a", "b", "c"]} if damage == "labels" else {"terms": few}
        plain.write_text(json.dumps({**json.loads(plain.read_text()), **changed}))
    with pytest.raises(InputError, match=r"damaged \("):
        load_linear(tmp_path)
