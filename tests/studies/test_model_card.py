"""The card of an export: YAML that the hub's own library reads, and figures that are those of the study."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from study_tasks import CLASSIFY, LABELLED, QUICK, folder_of, write_task

from trimtab import export, study


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> tuple[Path, Path]:
    """The task file of a study, and the folder of an adapter that it made."""
    home = tmp_path_factory.mktemp("card")
    file = write_task(home, tiny_model_folder, ["prompt", "quick"], task=CLASSIFY, data=LABELLED, more=QUICK)
    study(file, listeners=[])
    export(file, "quick", format="peft", out=home / "out", listeners=[])
    return file, home / "out"


def test_the_hub_reads_what_was_measured(exported: tuple[Path, Path]) -> None:
    file, folder = exported
    card = ModelCard((folder / "README.md").read_text())
    record = json.loads((folder_of(file) / "arms" / "quick" / "arm.json").read_text())
    (result,) = card.data.eval_results
    assert (result.metric_type, result.task_type) == ("accuracy", "text-classification")
    assert result.metric_value == pytest.approx(record["result"]["score"], abs=1e-4)
    assert (card.data.library_name, card.data.license) == ("peft", "other")
    assert card.data.license_name == "not known"  # a folder says nothing of its licence


def test_people_read_hashes_effort_calibration_limits_and_licences(exported: tuple[Path, Path]) -> None:
    file, folder = exported
    text = (folder / "README.md").read_text()
    manifest = json.loads((folder_of(file) / "manifest.json").read_text())
    assert manifest["hashes"]["data"] in text
    assert manifest["hashes"]["documents"] in text
    assert manifest["hashes"]["base"] in text
    record = json.loads((folder_of(file) / "arms" / "quick" / "arm.json").read_text())["result"]
    assert f"{record['score']:.3f} [{record['low']:.3f}, {record['high']:.3f}], {record['n']} questions" in text
    proof = json.loads((folder / "proof.json").read_text())["proofs"][0]
    assert f": {proof['same']} of {proof['questions']} labels are the same as measured, 95% interval " in text
    assert "The arm was measured in fp32." in text
    for words in ("## Limits", "## Licences", "weights: lora; stages: sft", "vllm serve", "=."):
        assert words in text
    assert "opened the test questions 1 time before this export" in text
    assert str(Path.home()) not in text


def test_rows_that_have_changed_since_are_told(exported: tuple[Path, Path], tmp_path: Path) -> None:
    file, _ = exported
    rows = file.parent / "rows.jsonl"
    before = rows.read_text()
    rows.write_text(
        before + json.dumps({"id": "new", "question": "a wholly other lighthouse?", "answer": "Bonn"}) + "\n"
    )
    try:
        export(file, "quick", format="merged", out=tmp_path / "out", listeners=[])
    finally:
        rows.write_text(before)
    assert "The rows have changed since the study" in (tmp_path / "out" / "README.md").read_text()
