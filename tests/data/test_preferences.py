"""Judged answers from files of every shape, what is refused of them, and that they stand where their prompts stand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.arms.workspace import open_workspace
from trimtab.base.config import SplitTable
from trimtab.base.errors import InputError
from trimtab.base.records import Example, Message, Preference, Split
from trimtab.base.task import load_task
from trimtab.data import row_store
from trimtab.data.chat import SkipRow
from trimtab.data.ledger import LedgerRow, find_ledger_rows, read_ledger, read_ledger_table, update_ledger
from trimtab.data.preferences import ReadPreferences, read_preference, read_preferences, split_preferences
from trimtab.data.raw_rows import RawRow
from trimtab.data.split import SPLITS

ASKED = (Message(role="user", content="Which city?"),)
TURNS = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Which city?"},
]
SPOKEN = [{"from": "human", "value": "Which city?"}]
HH = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Which city?\n\nAssistant: "


def read(**fields: Any) -> Preference:
    return read_preference(RawRow("prefs.jsonl", 3, fields))


def answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize(
    ("fields", "turns"),
    [
        ({"prompt": "Which city?", "chosen": "Rome", "rejected": "Oslo"}, 1),
        ({"question": "Which city?", "chosen": "Rome", "rejected": "Oslo"}, 1),
        ({"prompt": "Which city?", "chosen": answer("Rome"), "rejected": answer("Oslo")}, 1),
        ({"prompt": TURNS, "chosen": answer("Rome"), "rejected": answer("Oslo")}, 3),
        ({"prompt": TURNS, "chosen": "Rome", "rejected": "Oslo"}, 3),
        ({"chosen": [*TURNS, *answer("Rome")], "rejected": [*TURNS, *answer("Oslo")]}, 3),
        ({"prompt": "Which city?", "chosen": [TURNS[2], *answer("Rome")], "rejected": [TURNS[2], *answer("Oslo")]}, 1),
        (
            {
                "prompt": SPOKEN,
                "chosen": [{"from": "gpt", "value": "Rome"}],
                "rejected": [{"from": "gpt", "value": "Oslo"}],
            },
            1,
        ),
        ({"chosen": f"{HH}Rome", "rejected": f"{HH}Oslo"}, 3),
        ({"prompt": HH.removesuffix("\n\nAssistant: "), "chosen": "Rome", "rejected": "Oslo"}, 3),
        ({"prompt": HH, "chosen": " Rome", "rejected": " Oslo"}, 3),
    ],
)
def test_pairs_of_every_shape_are_the_same_pair(fields: dict[str, Any], turns: int) -> None:
    found = read(**fields)
    assert (found.chosen, found.rejected, found.is_pair) == ("Rome", "Oslo", True)
    assert found.messages[-1] == ASKED[0]
    assert len(found.messages) == turns
    assert found.as_example.references == ("Rome",)


@pytest.mark.parametrize("key", ["answer", "completion", "response"])
@pytest.mark.parametrize(
    ("said", "good"), [(True, True), (False, False), (1, True), (0, False), ("True", True), ("false", False)]
)
def test_an_answer_alone_is_good_or_bad(key: str, said: Any, good: bool) -> None:
    found = read(prompt="Which city?", good=said, **{key: "Rome"})
    assert (found.chosen, found.rejected) == (("Rome", None) if good else (None, "Rome"))
    assert found.messages == ASKED
    assert found.as_example.references == ("Rome",)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"prompt": "Q", "chosen": "Rome", "rejected": "Rome "}, "the same text"),
        ({"prompt": "Q", "chosen": "Rome", "rejected": ""}, "no answer in rejected"),
        ({"prompt": "Q", "chosen": "Rome"}, "no answer in rejected"),
        ({"prompt": "Q", "chosen": None, "rejected": "x"}, "no answer in chosen"),
        ({"prompt": " ", "chosen": "Rome", "rejected": "Oslo"}, "no text in prompt"),
        ({"prompt": 3, "chosen": "Rome", "rejected": "Oslo"}, "no text in prompt"),
        ({"chosen": "Rome", "rejected": "Oslo"}, "no prompt"),
        ({"chosen": f"{HH}Rome", "rejected": "\n\nHuman: Where?\n\nAssistant: Oslo"}, "different prompts"),
        (
            {"chosen": "\n\nHuman: Hi\n\nAssistant: x\n\nHuman: and?", "rejected": f"{HH}Oslo"},
            "does not end with an answer",
        ),
        (
            {"chosen": "\n\nAssistant: Hi\n\nHuman: a\n\nAssistant: Rome", "rejected": f"{HH}Oslo"},
            "a turn of assistant comes first",
        ),
        (
            {"chosen": "\n\nHuman: a\n\nHuman: b\n\nAssistant: Rome", "rejected": f"{HH}Oslo"},
            "a turn of user follows user",
        ),
        ({"chosen": "\n\nHuman: \n\nAssistant: Rome", "rejected": f"{HH}Oslo"}, "turn 1 in chosen is empty"),
        ({"chosen": f"{HH}", "rejected": f"{HH}Oslo"}, "turn 4 in chosen is empty"),
        ({"prompt": "\n\nAssistant: Hi\n\nHuman: a\n\nHuman: b", "chosen": "Rome", "rejected": "Oslo"}, "comes first"),
        ({"prompt": "\n\nHuman: a\n\nHuman: ", "chosen": "Rome", "rejected": "Oslo"}, "turn 2 in prompt is empty"),
        ({"prompt": "\n\nAssistant: Hi", "chosen": "Rome", "rejected": "Oslo"}, "comes first"),
        ({"prompt": "Other?", "chosen": [TURNS[2], *answer("Rome")], "rejected": "Oslo"}, "begins with other turns"),
        ({"prompt": "Q", "answer": "Rome", "good": "perhaps"}, "neither true nor false"),
        ({"prompt": "Q", "answer": "Rome", "good": 0.5}, "neither true nor false"),
        ({"prompt": "Q", "answer": " ", "good": True}, "no answer in answer"),
        ({"prompt": "x" * 1_000_001, "chosen": "Rome", "rejected": "Oslo"}, "are the most that is read"),
    ],
)
def test_a_row_that_says_nothing_is_left_out_with_the_reason(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(SkipRow) as refused:
        read(**fields)
    assert reason in refused.value.reason


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"text": "Rome", "label": 1}, "no preference; the fields here are: text, label"),
        ({"prompt": [{"role": "king", "content": "x"}], "chosen": "a", "rejected": "b"}, "unknown role"),
        ({"prompt": "Q", "chosen": "a", "rejected": "b", "weight": -1}, "negative or not finite"),
        ({"prompt": "Q", "chosen": "a", "rejected": "b", "weight": "much"}, "is not a number"),
    ],
)
def test_a_row_that_is_something_else_stops_the_reading(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read(**fields)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine draws slowly
@given(
    st.dictionaries(
        st.sampled_from(["prompt", "chosen", "rejected", "answer", "good"]),
        st.recursive(
            st.none() | st.booleans() | st.text(max_size=20) | st.integers(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["role", "content", "from", "value"]), inner, max_size=3)
            ),
            max_leaves=6,
        ),
    )
)
def test_nothing_that_json_can_hold_is_worse_than_refused(fields: dict[str, Any]) -> None:
    try:
        found = read(**fields)
    except (SkipRow, InputError):
        return
    assert found.messages
    assert (found.chosen or found.rejected or "").strip()


def task_of(folder: Path, rows: list[dict[str, Any]], name: str = "prefs.jsonl") -> ReadPreferences:
    (folder / "rows.jsonl").write_text('{"question": "a?", "answer": "b"}\n{"question": "c?", "answer": "d"}\n')
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "trimtab.toml").write_text(
        f'[task]\nkind = "answer"\n[data]\nexamples = ["rows.jsonl"]\npreferences = ["{name}"]\n'
    )
    return read_preferences(load_task(folder / "trimtab.toml"))


def test_a_file_gives_judgements_with_ids_of_their_own_and_refusals(tmp_path: Path) -> None:
    pair = {"prompt": "Which city?", "chosen": "Rome", "rejected": "Oslo"}
    one = {
        "prompt": "Which city?",
        "answer": "Rome",
        "good": True,
        "id": "mine",
        "group": "g",
        "licence": "MIT",
        "weight": 2,
    }
    found = task_of(tmp_path, [pair, pair, one, {"prompt": "Q", "chosen": "a", "rejected": "a"}])
    assert len({preference.id for preference in found.preferences}) == 3
    assert found.preferences[2].id == "mine"
    assert (found.preferences[2].group, found.preferences[2].licence, found.preferences[2].weight) == ("g", "MIT", 2.0)
    assert [(refusal.line, refusal.reason) for refusal in found.refusals] == [
        (4, "chosen and rejected are the same text")
    ]
    assert found.notes == ("prefs.jsonl: 2 pairs of answers, 1 answers judged alone",)
    assert task_of(tmp_path, [pair, pair, one]).preferences == found.preferences


def test_an_id_that_stands_twice_and_a_file_without_use_are_refused(tmp_path: Path) -> None:
    pair = {"prompt": "Which city?", "chosen": "Rome", "rejected": "Oslo", "id": "a"}
    with pytest.raises(InputError, match=r"the id 'a' stands already at .*prefs\.jsonl:1"):
        task_of(tmp_path, [pair, {**pair, "chosen": "Paris"}])
    with pytest.raises(InputError, match="no preference that can be used; the first: chosen and rejected are the same"):
        task_of(tmp_path, [{"prompt": "Q", "chosen": "a", "rejected": "a"}])


def example(number: int, question: str, group: str | None = None) -> Example:
    turn = Message(role="user", content=question)
    return Example(id=f"row{number}", messages=(turn,), references=("x",), group=group)


def preference(number: int, question: str, group: str | None = None) -> Preference:
    turn = Message(role="user", content=question)
    return Preference(id=f"pref{number}", messages=(turn,), chosen="good", rejected="bad", group=group)


SPLIT = SplitTable(dev=0.2, test=0.3, seed=0)
ROWS: dict[Split, tuple[Example, ...]] = {
    "train": (
        example(0, "What is the capital of the first country?"),
        example(1, "Who wrote the second book?", "book"),
    ),
    "dev": (example(2, "When was the third bridge built?"),),
    "test": (example(3, "How high is the fourth mountain?"), example(4, "Where does the fifth river end?", "river")),
}


def test_a_judgement_stands_where_its_prompt_or_its_group_stands(tmp_path: Path) -> None:
    judged = [
        preference(0, "what is the capital of the first country"),  # normalised
        preference(1, "When was the third bridge built?"),
        preference(2, "How high is the fourth mountain, then?"),  # near
        preference(3, "Something about a river", "river"),
        preference(4, "Something about a book", "book"),
    ]
    parts = split_preferences(judged, ROWS, SPLIT, tmp_path / "splits.parquet")
    assert [one.id for one in parts["train"]] == ["pref0", "pref4"]
    assert [one.id for one in parts["dev"]] == ["pref1"]
    assert [one.id for one in parts["test"]] == ["pref2", "pref3"]


def test_what_repeats_a_test_question_in_part_is_never_trained_on(tmp_path: Path) -> None:
    """Judgements that belong together, of which one repeats a training question and one a test question."""
    judged = [preference(0, ROWS["train"][0].input, "mine"), preference(1, ROWS["test"][0].input, "mine")]
    parts = split_preferences(judged, ROWS, SPLIT, tmp_path / "splits.parquet")
    assert [one.id for one in parts["test"]] == ["pref0", "pref1"]
    assert not parts["train"]


def test_others_get_their_share_stay_together_and_never_move(tmp_path: Path) -> None:
    ledger = tmp_path / "splits.parquet"
    judged = [
        preference(n, f"{n * 7919} is about {chr(97 + n % 26) * 9} number {n * 31}?", f"g{n // 2}") for n in range(200)
    ]
    parts = split_preferences(judged, ROWS, SPLIT, ledger)
    sizes = {name: len(part) for name, part in parts.items()}
    assert sum(sizes.values()) == 200
    assert 20 < sizes["dev"] < 65
    assert 35 < sizes["test"] < 90
    sides = {one.group: name for name in SPLITS for one in parts[name]}
    assert all(sides[one.group] == name for name in SPLITS for one in parts[name])
    assert len(read_ledger(ledger)) == 200
    more = split_preferences([*judged[::-1], preference(999, "a new one?")], ROWS, SPLIT, ledger)
    for name in SPLITS:
        assert {one.id for one in parts[name]} <= {one.id for one in more[name]}
    assert [one.id for one in split_preferences(judged, ROWS, SPLIT, ledger)["train"]] == [
        one.id for one in parts["train"]
    ]


def test_what_stood_in_test_is_not_trained_on_when_an_example_that_it_repeats_comes_to_train(tmp_path: Path) -> None:
    """And what moved to test, because a row there asked the same, stays when that row is gone."""
    ledger = tmp_path / "splits.parquet"
    judged = [preference(n, f"{n * 7919} is about {chr(97 + n % 26) * 9} number {n * 31}?") for n in range(60)]
    parts = split_preferences(judged, ROWS, SPLIT, ledger)
    held, learnt = parts["test"][0], parts["train"][0]
    now = {
        **ROWS,
        "train": (*ROWS["train"], example(90, held.as_example.input)),
        "test": (*ROWS["test"], example(91, learnt.as_example.input)),
    }
    assert {held, learnt} <= set(split_preferences(judged, now, SPLIT, ledger)["test"])
    assert {held, learnt} <= set(split_preferences(judged, ROWS, SPLIT, ledger)["test"])


def test_judgements_of_stored_rows_stand_where_those_of_rows_in_memory_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = [preference(n, f"Is {n * 7919} about {chr(97 + n % 26) * 9}?", f"g{n // 2}") for n in range(60)]
    rows: dict[Split, tuple[Example, ...]] = {
        name: tuple(example(100 * at + n, judged[20 * at + n].as_example.input, f"g{50 - n}") for n in range(0, 15, 2))
        for at, name in enumerate(SPLITS)
    }
    found = []
    for most in (100_000, 2):
        monkeypatch.setattr(row_store, "IN_MEMORY", most)
        monkeypatch.setattr(row_store, "BLOCK", 3)
        given = {}
        for name, part in rows.items():
            writer = row_store.RowWriter(tmp_path)
            for row in part:
                writer.append(row)
            given[name] = writer.finish()
        ledger = tmp_path / f"{most}.parquet"
        parts = split_preferences(judged[:40], given, SPLIT, ledger)
        found.append((parts, split_preferences(judged, given, SPLIT, ledger), list(read_ledger(ledger).values())))
    assert row_store.are_stored(given["train"])
    assert found[0] == found[1]
    assert all(found[0][0].values())


def test_a_ledger_row_is_replaced_in_its_place_and_a_new_one_put_at_the_end(tmp_path: Path) -> None:
    ledger = tmp_path / "splits.parquet"
    first = [LedgerRow(f"r{n}", f"g{n}", "x" if n else "", "train") for n in range(5)]
    update_ledger(ledger, read_ledger_table(ledger), first)
    changed = [LedgerRow("new", "g", "", "dev"), LedgerRow("r3", "g9", "y", "test"), LedgerRow("r1", "g1", "x", "dev")]
    table = read_ledger_table(ledger)
    assert find_ledger_rows(table, ["r3", "none", "r0"]) == {"r0": first[0], "r3": first[3]}
    update_ledger(ledger, table, changed)
    now = list(read_ledger(ledger).values())
    assert now == [first[0], changed[2], first[2], changed[1], first[4], changed[0]]


def test_a_judgement_finds_its_group_also_where_rows_of_two_groups_repeat_each_other(tmp_path: Path) -> None:
    """Their rows are one group from the split on, and have the name of the first alone; test rows of their own file
    too."""
    rows = [{"question": f"What is {n * 7919} about?", "answer": str(n), "topic": f"g{n:02}"} for n in range(60)]
    copies = [{**row, "topic": f"z{n:02}"} for n, row in enumerate(rows)]
    judged = [
        {
            "prompt": f"Tell {chr(97 + n % 26) * 9} more of {n * 104729}",
            "chosen": "a",
            "rejected": "b",
            "group": f"{side}{n:02}",
        }
        for n in range(60)
        for side in "gz"
    ]
    own = [{"id": "1", "question": f"Who saw {n * 31} of {n * 6007}?", "answer": "x", "topic": "held"} for n in (1, 2)]
    own[1]["id"], own[1]["topic"], own[1]["question"] = "2", "kept", own[0]["question"]
    judged += [{"prompt": "Once more, who?", "chosen": "a", "rejected": "b", "group": "kept"}]
    for name, written in (
        ("rows", [{**row, "id": str(n)} for n, row in enumerate([*rows, *copies])]),
        ("own", own),
        ("judged", judged),
    ):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
    table = (
        '[task]\nkind = "answer"\n[data]\nexamples = ["rows.jsonl"]\ngroup = "topic"\npreferences = ["judged.jsonl"]\n'
    )
    for test in ("", 'test = ["own.jsonl"]\n'):
        (tmp_path / "trimtab.toml").write_text(table + test)
        opened = open_workspace(load_task(tmp_path / "trimtab.toml"), refuse_leaks=False)
        side = {row.input: name for name in SPLITS for row in opened.splits[name]}
        asked = {row["topic"]: row["question"] for row in (*rows, *copies, *own)}
        for name in SPLITS:
            assert {side.get(asked[str(one.group)], name) for one in opened.preferences[name]} <= {name}
        (tmp_path / ".trimtab" / "splits.parquet").unlink()
    assert "kept" in {one.group for one in opened.preferences["test"]}


def test_without_judgements_nothing_is_written(tmp_path: Path) -> None:
    assert split_preferences([], ROWS, SPLIT, tmp_path / "splits.parquet") == {"train": (), "dev": (), "test": ()}
    assert not (tmp_path / "splits.parquet").exists()
