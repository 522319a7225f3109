"""Instructions that an endpoint proposes: read from its answer, tried on dev, paid for, and asked for once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from openai_server import KEY, Server, serving
from study_tasks import CLASSIFY, LABELLED, arm_of, begin_with_time, events, folder_of, rows_of, write_task

from trimtab import check, study
from trimtab.arms.search.instructions import MOST_PROPOSED, read_proposals
from trimtab.base.errors import ConsentError, InputError
from trimtab.base.results import StudyResult
from trimtab.base.task import load_task

SAYS = """Here are other instructions:
1. Name the city that the question speaks of.
2) "Say which city it is, in one word."
- Which of the ten cities is named?
"""
NAMED = (
    "Name the city that the question speaks of.",
    "Say which city it is, in one word.",
    "Which of the ten cities is named?",
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (SAYS, NAMED),
        ("", ()),
        ("Sure!\n\nOK.", ()),
        ("Answer with the city.\nAnswer with the city.", ("Answer with the city.",)),
        ("Answer \x1b[31m with the city.", ("Answer ␛[31m with the city.",)),
        ("x " * 2000, ()),
        (
            "\n".join(f"{n}. Answer as number {n} says" for n in range(9)),
            tuple(f"Answer as number {n} says" for n in range(MOST_PROPOSED)),
        ),
    ],
)
def test_an_answer_gives_one_instruction_a_line(text: str, found: tuple[str, ...]) -> None:
    assert read_proposals(text) == found


def a_task(folder: Path, model: Path, url: str, *, proposes: str = "true") -> Path:
    price = '{ input = 1000, output = 2000, as_of = 2026-11-01, source = "test" }'
    more = f"""
[api.big]
url = "{url}"
model = "tiny"
key_env = "TINY_KEY"
proposes = {proposes}
price_per_million = {price}
[cost]
machine_hour = {{ price = 0.4, as_of = 2026-11-01, source = "test" }}
"""
    data = f"{LABELLED}\nsplit = {{ dev = 0.3, test = 0.3, seed = 0 }}"
    folder.mkdir(exist_ok=True)
    return write_task(
        folder, model, ["prompt"], rows=rows_of(100), task=CLASSIFY, data=data, effort="standard", more=more
    )


def run(task: Path, server: Server, **more: str) -> StudyResult:
    return study(task, allow=[f"TINY_KEY@{server.url}"], listeners=[], **more)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("TINY_KEY", KEY)
    with serving() as one:
        one.says = SAYS
        yield one


def test_what_is_proposed_is_tried_and_stands_in_the_arms_cost(
    server: Server, tmp_path: Path, tiny_model_folder: Path
) -> None:
    task = a_task(tmp_path / "with", tiny_model_folder, server.url)
    begin_with_time(task, allow=[f"TINY_KEY@{server.url}"])  # or a busy machine would leave some of them out
    asked = run(task, server, resume="latest")
    tried = arm_of(asked, "prompt").effort
    assert tried is not None
    assert set(NAMED) <= {trial.what.get("instruction") for trial in tried.trials}
    assert len(server.bodies) == 1
    sent = server.bodies[0]["messages"][0]["content"]
    assert "Which city?" in sent
    assert "Question: " in sent
    plain = study(a_task(tmp_path / "without", tiny_model_folder, server.url, proposes="false"), listeners=[])
    assert len(server.bodies) == 1  # nothing is sent that was not asked for
    with_fee, without = arm_of(asked, "prompt").cost, arm_of(plain, "prompt").cost
    assert with_fee is not None
    assert without is not None
    usage = next(line for line in (folder_of(task, asked) / "proposals.jsonl").read_text().splitlines())
    assert '"prompt_tokens": ' in usage
    assert with_fee.up_front - without.up_front > 0.1  # a thousandth of a million tokens costs a unit and more


def test_a_study_that_goes_on_does_not_ask_again(server: Server, tmp_path: Path, tiny_model_folder: Path) -> None:
    task = a_task(tmp_path / "again", tiny_model_folder, server.url)
    first = run(task, server)
    again = run(task, server, resume="latest")
    assert len(server.bodies) == 1
    assert arm_of(first, "prompt").effort == arm_of(again, "prompt").effort


def test_rows_are_sent_to_no_address_that_was_not_allowed(
    server: Server, tmp_path: Path, tiny_model_folder: Path
) -> None:
    task = a_task(tmp_path / "asked", tiny_model_folder, server.url)
    with pytest.raises(ConsentError, match="to send questions and training rows to"):
        study(task, listeners=[])
    assert any("training rows" in remark.text for remark in check(task, listeners=[]).remarks)
    assert not server.bodies


def test_rows_are_named_only_where_they_are_sent(server: Server, tmp_path: Path, tiny_model_folder: Path) -> None:
    """Without effort nothing is proposed, so the task's own arms need no address."""
    task = a_task(tmp_path / "named", tiny_model_folder, server.url)
    task.write_text(
        task.read_text().replace('effort = "standard"', 'effort = "none"').replace('["prompt"]', '["api-big"]')
    )
    with pytest.raises(ConsentError, match="to send questions to"):
        study(task, listeners=[])


def test_an_endpoint_that_only_decides_proposes_nothing(tmp_path: Path) -> None:
    task = a_task(tmp_path / "decides", Path("nowhere"), "http://127.0.0.1:1/v1")
    task.write_text(task.read_text().replace('model = "tiny"\nkey', 'api = "systemone"\nmodel = "tiny"\nkey'))
    with pytest.raises(InputError, match="proposes needs an endpoint that writes"):
        load_task(task)


def test_an_endpoint_that_fails_costs_the_study_nothing_but_its_proposals(
    server: Server, tmp_path: Path, tiny_model_folder: Path
) -> None:
    server.faults = ["broken"] * 9
    task = a_task(tmp_path / "failing", tiny_model_folder, server.url)
    result = run(task, server)
    assert arm_of(result, "prompt").status == "done"
    notes = [event.get("note", "") for event in events(folder_of(task, result))]
    assert any(note.startswith("no instructions from api.big: ") for note in notes)
