"""The verbs with the real small models on a tiny task: an edited document, training, a stop, scores, the loss mask."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from trimtab.base.errors import StoppedError
from trimtab.base.files import read_json, read_json_lines
from trimtab.base.task import load_task
from trimtab.measurement.evaluate import load_answers
from trimtab.studies.ask import ask
from trimtab.studies.check import check
from trimtab.studies.eval import eval as score
from trimtab.studies.runs import runs
from trimtab.studies.train import train

DOCUMENTS = {
    "leave.md": "# Leave\n## Days\nEmployees have 25 days of annual leave.\n## Illness\n"
    "A doctor's note is needed from the third day.\n",
    "pay.md": "# Pay\nSalaries are paid on day 27 of each month. The bonus comes in April.\n",
    "office.md": "# Offices\nThe headquarters is in Brannock. The kitchen is on floor 2.\n",
}
FACTS = [
    ("How many days of annual leave are there?", "25"),
    ("From which day is a doctor's note needed?", "third"),
    ("On which day of the month are salaries paid?", "27"),
    ("In which month comes the bonus?", "April"),
    ("Which town hosts the headquarters?", "Brannock"),
    ("What floor has the kitchen?", "2"),
]
WAYS = ["{}", "Tell me, please: {}", "A colleague wants to know this. {}", "{} I could not find it."]
TASK = """
[task]
name = "tiny"
kind = "answer"
instruction = "Answer the question from the passages in one short sentence."
output_tokens = 24
[data]
documents = ["documents/"]
"""
ROWS = """
examples = ["questions.jsonl"]
columns = { input = "question", output = "answer" }
group = "fact"
"""
MODEL = """
[base]
model = "smollm2-135m-q4"
"""
ARMS = """
[study]
arms = ["rag", "tiny"]
effort = "none"
[arm.tiny]
weights = "lora"
rank = 2
epochs = 1
batch = 4
"""


def folder_of_documents(folder: Path) -> Path:
    (folder / "documents").mkdir(parents=True)
    for name, text in DOCUMENTS.items():
        (folder / "documents" / name).write_text(text)
    return folder


def test_documents_alone_are_answered_from_and_an_edited_one_on_the_next_call(tmp_path: Path) -> None:
    folder = folder_of_documents(tmp_path)
    (folder / "trimtab.toml").write_text(TASK + MODEL)
    question = "From which day is a doctor's note needed?"
    before = ask(question, task=folder)
    assert before.arm == "extract"
    assert "third" in before.answer
    cited = [hit.passage.path[-1] for hit in before.hits if hit.rank in before.cited]
    assert cited == ["Illness"]
    (folder / "documents" / "leave.md").write_text(DOCUMENTS["leave.md"].replace("third", "seventh"))
    after = ask(question, task=folder)
    assert "seventh" in after.answer
    assert not any("third" in hit.passage.text for hit in after.hits)


@pytest.fixture(autouse=True)
def few_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the test questions four are timed alone."""
    monkeypatch.setattr("trimtab.arms.workspace.MIN_LATENCIES", 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = folder_of_documents(tmp_path_factory.mktemp("verbs"))
    rows = [
        {"question": way.format(question), "answer": answer, "fact": f"f{number}"}
        for number, (question, answer) in enumerate(FACTS)
        for way in WAYS
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "trimtab.toml").write_text(TASK + ROWS + MODEL + ARMS)
    return folder


def test_check_shows_the_loss_mask_and_predicts_every_arm(folder: Path) -> None:
    result = check(folder)
    assert result.example_arm == "tiny"
    asked, written = result.example
    assert (asked.trained, written.trained) == (False, True)
    assert asked.text.endswith("<|im_start|>assistant\n")
    assert load_task(folder).task.instruction in asked.text
    assert written.text in {f"{answer}<|im_end|>" for _, answer in FACTS}
    assert [row.arm for row in result.forecasts] == ["rag", "tiny"]
    assert all(row.minutes is not None and 0 < row.minutes < 10 for row in result.forecasts)
    assert result.tokens is not None
    assert result.tokens.prompt_median <= result.tokens.prompt_longest < result.tokens.context
    assert result.tokens.too_long == 0


def test_training_stopped_by_a_signal_goes_on_to_the_same_weights_and_is_scored(folder: Path, capsys) -> None:
    whole = train(folder, "tiny", listeners=[])
    assert whole.steps > 1
    assert [info.id for info in runs(folder)] == [whole.id]

    def interrupt(event) -> None:
        if event["stage"] == "train" and event["step"] == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(StoppedError, match="go on with --resume"):
        train(folder, "tiny", listeners=[interrupt])
    newest = runs(folder)[0]
    assert (newest.kind, newest.state, newest.arm) == ("run", "unfinished", "tiny")
    resumed = train(folder, "tiny", resume="latest", listeners=[])
    assert (resumed.id, resumed.steps) == (newest.id, whole.steps)
    one, other = (load_file(run.folder / "adapter" / "adapter_model.safetensors") for run in (whole, resumed))
    assert set(one) == set(other)
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert read_json(resumed.folder / "manifest.json")["result"]["steps"] == whole.steps

    result = score(folder, "tiny", run=whole.id)
    kept = load_answers(folder / ".trimtab" / "evals" / f"{whole.id}-tiny-dev" / "answers.parquet")
    assert result.score is not None
    assert result.score.n == len(kept) > 0
    assert result.score.value == pytest.approx(np.mean([answer.score for answer in kept]))
    assert result.train_seconds == pytest.approx(whole.seconds)
    assert not (folder / ".trimtab" / "openings.jsonl").exists()
    assert ask("What floor has the kitchen?", task=folder, arm="tiny").arm == "tiny"

    score(folder, "rag", split="test")
    assert "opened once" in capsys.readouterr().err
    assert len(list(read_json_lines(folder / ".trimtab" / "openings.jsonl"))) == 1


def test_a_linear_arm_is_trained_scored_and_asked(tmp_path: Path) -> None:
    words = {"fruit": "apple pear plum fig grape", "tool": "hammer saw drill rasp chisel"}
    rows = [
        {"text": f"{before} {word} number {place}", "label": label}
        for label, names in words.items()
        for place, word in enumerate(names.split())
        for before in ("a ripe", "my old", "that", "one more")
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = '[task]\nname = "t"\nkind = "classify"\n[data]\nexamples = ["rows.jsonl"]\nleakage = "report"\n'
    (tmp_path / "trimtab.toml").write_text(task + MODEL + '[study]\narms = ["linear"]\n')
    train(tmp_path, "linear", listeners=[])
    result = score(tmp_path, "linear")
    assert result.score is not None
    assert result.score.value > 0.5
    assert ask("a rusty hammer", task=tmp_path, arm="linear").answer == "tool"
