"""A study whose answers a local model judges: uncalibrated until people have graded enough answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from study_tasks import folder_of, rows_of, write_task

import trimtab
from trimtab.arms.judges import _WordChooser, open_judge
from trimtab.base.errors import ConsentError, InputError
from trimtab.base.records import Generation, Prompt
from trimtab.base.task import load_task
from trimtab.measurement import audit as measured
from trimtab.measurement.judge import DEGREES
from trimtab.studies.audit import audit

JUDGED = 'kind = "answer"\nmetric = "judged"\nunknown = "unknown"\noutput_tokens = 6'
TABLE = '[judge]\ncriteria = { city = "Names a city.", short = "Is one word." }\n'


@pytest.fixture
def longer_model(tmp_path: Path, tiny_model_folder: Path) -> Path:
    """The tiny model, which reads 2,048 tokens: a judgement has more than its own 256."""
    folder = tmp_path / "longer"
    shutil.copytree(tiny_model_folder, folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"max_position_embeddings": 2048}))
    return folder


def test_an_answer_that_a_local_judge_cannot_read_whole_is_named(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["prompt"], rows=rows_of(48), task=JUDGED, more=TABLE)
    with pytest.raises(InputError, match=r"the judge cannot read an answer whole: row7: .*with a longer context"):
        open_judge(load_task(task)).score([("row7", "Where?", ("Bonn",), "Bonn")])


def test_a_judged_score_decides_nothing_until_people_have_graded_answers(
    tmp_path: Path, longer_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = _WordChooser.choose

    def varied(self: _WordChooser, prompts: Sequence[Prompt], words: Sequence[str]) -> list[Generation]:
        """The random model's choice is always the same; its place is taken by one that differs by prompt."""
        found = chosen(self, prompts, words)
        assert {one.text for one in found} <= set(DEGREES)
        texts = [list(DEGREES)[len(prompt.messages[-1].content) % 2] for prompt in prompts]
        return [replace(one, text=text) for one, text in zip(found, texts, strict=True)]

    monkeypatch.setattr(_WordChooser, "choose", varied)
    task = write_task(tmp_path, longer_model, ["prompt", "few-shot"], rows=rows_of(48), task=JUDGED, more=TABLE)
    result = trimtab.study(task, listeners=[])
    assert result.verdict.status == "not_shown"
    assert result.verdict.sentence.startswith("First let people grade the answers to 60 questions (trimtab audit")
    assert "the judge is uncalibrated, so nothing shows which arm is best" in result.verdict.sentence
    assert "Main risk" not in result.verdict.sentence
    assert not any("If a point" in line or line.startswith("Not shown") for line in result.verdict.before_relying)
    assert "people grade the answers to 60 questions" in (result.verdict.needs or "")
    assert "The judge wrote the answers" in result.verdict.details
    for arm in result.arms:
        assert arm.score is not None
        assert arm.score.value * 4 * arm.score.n == pytest.approx(round(arm.score.value * 4 * arm.score.n))

    kept = (tmp_path / ".trimtab" / "judgements.jsonl").read_text().splitlines()
    again = trimtab.study(task, listeners=[])  # judges nothing that it has judged
    assert [arm.score for arm in again.arms] == [arm.score for arm in result.arms]
    assert (tmp_path / ".trimtab" / "judgements.jsonl").read_text().splitlines() == kept

    monkeypatch.setattr(measured, "ENOUGH", 5)
    session = audit(result, task=task)
    mine = {one.answer for one in session.answers["prompt"]}
    for asked in session.pending:
        assert asked.criterion in ("city: Names a city.", "short: Is one word.")
        session.judge(asked, DEGREES["partly"] if asked.answer in mine else DEGREES["no"])
    corrected = session.finish()
    assert corrected.audit is not None
    assert corrected.audit.why_not is None
    assert "uncalibrated" not in corrected.verdict.sentence.lower()
    scores = {arm.arm: arm.score.value for arm in corrected.arms if arm.score}
    assert scores["prompt"] == pytest.approx(0.5, abs=0.01)
    assert audit(result, task=task).pending == []
    assert folder_of(task, result).is_dir()


def test_an_endpoint_judges_only_with_consent_and_the_table_needs_its_metric(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    endpoint = '[api.big]\nurl = "http://127.0.0.1:9/v1"\nmodel = "m"\n'
    more = f'{TABLE}by = "big"\n{endpoint}'
    task = write_task(tmp_path, tiny_model_folder, ["prompt"], rows=rows_of(48), task=JUDGED, more=more)
    with pytest.raises(ConsentError, match="references and answers to judge"):
        trimtab.study(task, listeners=[])
    alone = write_task(tmp_path, tiny_model_folder, ["prompt"], rows=rows_of(48), more=TABLE)
    with pytest.raises(InputError, match="go together"):
        load_task(alone)
