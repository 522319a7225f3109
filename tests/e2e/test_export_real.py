"""A trained arm of the real small model in every format, each asked back by who will read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trimtab import export, train

FACTS = {
    "leave": ("How many days of annual leave are there?", "25"),
    "note": ("From which day is a doctor's note needed?", "third"),
    "pay": ("On which day of the month are salaries paid?", "27"),
    "bonus": ("In which month comes the bonus?", "April"),
    "town": ("Which town hosts the headquarters?", "Brannock"),
    "floor": ("What floor has the kitchen?", "2"),
}
TASK = """
[task]
name = "handbook"
kind = "answer"
instruction = "Answer in a few words."
output_tokens = 10
[data]
examples = ["questions.jsonl"]
documents = ["documents/"]
leakage = "report"
split = { dev = 0.1, test = 0.4, seed = 0 }
[base]
model = "smollm2-135m-q4"
precision = "fp32"
[study]
effort = "none"
[arm.tiny]
weights = "lora"
rank = 2
epochs = 1
batch = 4
[arm.packed]
weights = "qlora"
rank = 2
epochs = 1
batch = 4
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    (folder / "documents").mkdir()
    (folder / "documents" / "pay.md").write_text("# Pay\nSalaries are paid on day 27. The bonus comes in April.\n")
    rows = [
        {"question": way.format(question), "answer": answer}
        for question, answer in FACTS.values()
        for way in ("{}", "Tell me, please: {}")
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "trimtab.toml").write_text(TASK)
    train(folder, "tiny", listeners=[])
    return folder


@pytest.mark.parametrize(
    ("format", "quantize", "claimed"),
    [("peft", None, True), ("merged", None, True), ("gguf", "f32", True)],
)
def test_a_trained_arm_answers_as_measured(
    format: Any, quantize: str | None, claimed: bool, folder: Path, tmp_path: Path
) -> None:
    result = export(folder, "tiny", format=format, quantize=quantize, out=tmp_path / "out", listeners=[])
    assert not result.failed
    for proof in result.proofs[-1:]:
        assert (proof.claimed, proof.questions) == (claimed, 5)
        assert proof.same_prompts == 5
        assert proof.differ == 0 or not claimed
        assert proof.same >= 4 or not claimed
    assert all(proof.same >= 4 for proof in result.proofs[:-1])  # llama.cpp, where it is installed
    if format == "gguf":
        modelfile = (tmp_path / "out" / "Modelfile").read_text()
        assert 'SYSTEM """Answer in a few words."""' in modelfile
        assert "SmolLM" not in modelfile.partition("{{ range")[2]  # the template's own system turn is for others only


def test_an_adapter_over_packed_weights_answers_as_measured_where_peft_packs_them_so(
    folder: Path, tmp_path: Path
) -> None:
    train(folder, "packed", listeners=[])
    result = export(folder, "packed", format="peft", out=tmp_path / "out", listeners=[])
    assert not result.failed
    assert (result.proofs[0].differ, result.proofs[0].questions) == (0, 5)
    assert json.loads((tmp_path / "out" / "quantization.json").read_text())["load_in_4bit"]
    assert "as `quantization.json` has it" in (tmp_path / "out" / "README.md").read_text()


def test_a_bundle_of_passages_builds_the_same_prompts(folder: Path, tmp_path: Path) -> None:
    result = export(folder, "rag", format="bundle", out=tmp_path / "out", listeners=[])
    assert not result.failed
    assert result.proofs[0].same == 5
