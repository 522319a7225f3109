"""The spam example: it is what its script writes, large and varied enough, and no two messages are nearly the same."""

import json
import re
import subprocess
import sys
import tomllib
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import f1_score

import trimtab.demos
from trimtab.base.config import SplitTable
from trimtab.base.records import Example, Message
from trimtab.base.task import load_task
from trimtab.data.duplicates import DuplicateIndex, dedup_text, find_duplicates
from trimtab.data.split import assign_splits
from trimtab.training.linear import train_linear

FOLDER = Path(trimtab.demos.__file__).parent / "spam"
ROWS: list[dict[str, Any]] = [
    json.loads(line) for line in (FOLDER / "messages.jsonl").read_text(encoding="utf-8").splitlines()
]


def test_the_script_writes_the_same_bytes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(FOLDER / "make.py"), str(tmp_path)], check=True, timeout=300)
    assert (tmp_path / "messages.jsonl").read_bytes() == (FOLDER / "messages.jsonl").read_bytes()


def test_the_counts_that_the_readme_states() -> None:
    assert len(ROWS) == 1848
    assert Counter(row["slice"] for row in ROWS) == {"common": 1620, "rare": 228}
    assert {row["label"] for row in ROWS} == {"spam", "ham", "promo"}
    assert min(Counter(row["label"] for row in ROWS).values()) >= 200


def test_a_group_has_one_label_and_shares_no_sentence_with_another() -> None:
    labels: defaultdict[str, set[str]] = defaultdict(set)
    groups: defaultdict[str, set[str]] = defaultdict(set)
    for row in ROWS:
        labels[row["group"]].add(row["label"])
        for sentence in re.split(r"(?<=[.!?]) +", row["input"].lower()):
            if len(sentence) > 35:
                groups[sentence].add(row["group"])
    assert len(labels) >= 300
    assert {len(found) for found in labels.values()} == {1}
    assert {sentence: found for sentence, found in groups.items() if len(found) > 1} == {}


def test_every_label_has_rare_cases() -> None:
    assert {row["label"] for row in ROWS if row["slice"] == "rare"} == {"spam", "ham", "promo"}


def test_ids_and_messages_are_unique() -> None:
    for field in ("id", "input"):
        assert max(Counter(row[field] for row in ROWS).values()) == 1


def test_messages_are_short_and_their_slots_filled() -> None:
    for row in ROWS:
        assert 10 <= len(row["input"]) <= 250, row
        assert "{" not in row["input"], row


def test_no_two_messages_are_nearly_the_same() -> None:
    holders: defaultdict[str, list[int]] = defaultdict(list)
    sizes: list[int] = []
    for place, row in enumerate(ROWS):
        text = row["input"].lower()
        grams = {text[start : start + 5] for start in range(len(text) - 4)}
        shared = Counter(other for gram in grams for other in holders[gram])
        assert all(both < 0.8 * (len(grams) + sizes[other] - both) for other, both in shared.items()), row
        for gram in grams:
            holders[gram].append(place)
        sizes.append(len(grams))


def test_no_single_word_gives_a_label_away() -> None:
    words: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in ROWS:
        for word in set(row["input"].lower().split()):
            words[word][row["label"]] += 1
    sizes = Counter(row["label"] for row in ROWS)
    for word, labels in words.items():
        label, count = labels.most_common(1)[0]
        alone = count == labels.total()
        assert not (alone and count > 0.2 * sizes[label]), f"{word!r} stands in {count} messages, all {label}"


@pytest.mark.parametrize("name", ["trimtab.toml", "demo.toml"])
def test_the_task_files_name_the_data(name: str) -> None:
    task = tomllib.loads((FOLDER / name).read_text(encoding="utf-8"))
    assert [(FOLDER / name).is_file() for name in task["data"]["examples"]] == [True]
    assert task["data"]["slice"] in ROWS[0]


def test_the_cut_asks_the_same_question_of_the_same_data() -> None:
    whole, cut = (tomllib.loads((FOLDER / name).read_text(encoding="utf-8")) for name in ("trimtab.toml", "demo.toml"))
    for table in ("base", "target"):
        assert cut[table] == whole[table]
    for table, own in (("task", "name"), ("data", "split")):
        assert {key: value for key, value in cut[table].items() if key != own} == {
            key: value for key, value in whole[table].items() if key != own
        }
    meant = {cut["arm"].get(name, {}).get("context", name) for name in cut["study"]["arms"]}
    assert meant < set(whole["study"]["arms"])


@pytest.fixture(scope="module")
def examples() -> tuple[tuple[Example, ...], DuplicateIndex]:
    """The messages as the program holds them, and what repeats what."""
    rows = tuple(
        Example(
            id=row["id"],
            messages=(Message(role="user", content=row["input"]),),
            references=(row["label"],),
            group=row["group"],
        )
        for row in ROWS
    )
    return rows, find_duplicates([dedup_text(row) for row in rows])


@pytest.mark.no_kernels
@pytest.mark.parametrize("seed", range(5))
def test_whatever_the_split_the_cut_tests_many_hands_and_words_alone_reach_its_target(
    seed: int, examples: tuple[tuple[Example, ...], DuplicateIndex], tmp_path: Path
) -> None:
    rows, likeness = examples
    task = load_task(FOLDER / "demo.toml")
    shares = SplitTable(dev=task.data.split.dev, test=task.data.split.test, seed=seed)
    parts = assign_splits(rows, (), shares, tmp_path / "splits.parquet", "classify", likeness=likeness)
    hands = Counter(row.group for row in parts["test"])
    assert len(hands) >= 40
    assert max(hands.values()) <= 2 * min(hands.values())
    texts = {name: [row.messages[0].content for row in part] for name, part in parts.items()}
    labels = {name: [row.references[0] for row in part] for name, part in parts.items()}
    model, _ = train_linear(texts["train"], labels["train"], texts["dev"], labels["dev"], None)
    answers = [model.labels[place] for place in model.probabilities(texts["test"], None).argmax(axis=1)]
    assert task.target.quality is not None
    assert f1_score(labels["test"], answers, average="macro") > task.target.quality + 0.05
