"""Weights of 8 bits: offered once their cost was measured, served as they were measured, refused where they cost too
much."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from serving_tasks import Here, serving_here
from study_tasks import folder_of

from trimtab.arms.store import EIGHT_BIT
from trimtab.base.codec import read_record, to_plain, write_record
from trimtab.base.errors import InputError
from trimtab.base.results import ArmResult
from trimtab.measurement.evaluate import load_answers
from trimtab.studies.eval import eval as score_arm


@pytest.fixture(scope="module")
def own(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study of the folder's other tests, to add to."""
    folder = tmp_path_factory.mktemp("eight") / "own"
    shutil.copytree(written.parent, folder)
    return folder / written.name


def test_it_is_measured_before_it_is_served(own: Path) -> None:
    study = folder_of(own).name  # whose weights are served, and must be those that are measured
    unmeasured = f"not measured; first run trimtab eval quick --run {study} --split test --eight-bit"
    with pytest.raises(InputError, match=unmeasured), serving_here(own, "quick", eight_bit=True):
        raise AssertionError
    plain = score_arm(own, "quick", split="test", listeners=[])
    assert "eight_bit" not in to_plain(plain)
    result = score_arm(own, "quick", split="test", eight_bit=True, listeners=[])
    cost = result.eight_bit
    assert cost
    assert plain.score
    assert result.score
    assert cost.low <= cost.lost <= cost.high
    assert cost.lost == pytest.approx(plain.score.value - result.score.value)
    assert cost.questions == result.score.n
    (folder,) = own.parent.glob(".trimtab/evals/*-quick-test-8bit")
    assert read_record(folder / EIGHT_BIT, ArmResult) == result
    kept = {one.item_id: one.answer for one in load_answers(folder / "answers.parquet")}
    usual = load_answers(next(own.parent.glob(".trimtab/evals/*-quick-test")) / "answers.parquet")
    assert cost.same == pytest.approx(sum(kept[one.item_id] == one.answer for one in usual) / len(kept))

    with serving_here(own, "quick", eight_bit=True) as here:
        (model,) = here.parts.dispatcher.models.values()
        assert model.check is not None
        assert model.check.equal >= 0.95 * model.check.questions  # of those that 8 bits gave
        assert model.result == result  # which the page shows, in place of the study's
        with here.client() as client:
            body = {"model": "quick", "messages": [{"role": "user", "content": "Bonn?"}], "max_tokens": 4}
            assert client.post("/v1/chat/completions", json=body).status_code == 200

    dear = replace(cost, lost=0.2, low=0.1, high=0.3)
    write_record(folder / EIGHT_BIT, replace(result, eight_bit=dear))
    too_much = r"8 bits cost more than the margin of 0\.02: quick in 8 bits: score lost 0\.200"
    with pytest.raises(InputError, match=too_much), serving_here(own, "quick", eight_bit=True):
        raise AssertionError
    with serving_here(own, "quick", eight_bit=True, unequal=True) as here:
        assert here.parts.limiter.is_ready


def test_an_arm_without_the_base_has_no_such_weights(deciding: Here) -> None:
    with pytest.raises(InputError, match="arm linear answers without the base model"):
        score_arm(deciding.folder, "linear", eight_bit=True, listeners=[])
