"""Which arms are not shown to beat answering without a model, and the sentence that names them."""

from __future__ import annotations

from trimtab.base.codec import from_plain, to_plain
from trimtab.base.grammar import TRIVIAL
from trimtab.base.results import Estimate, TrivialArm
from trimtab.decision.summary import WITHOUT_MODEL, way
from trimtab.decision.trivial import beside, sentence


def estimate(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.05, high=value + 0.05, n=100)


def test_an_arm_beats_a_trivial_one_only_after_holm_over_all_pairs() -> None:
    chances = {("rag", "most-frequent"): 0.01, ("rag", "always-unknown"): 0.02, ("prompt", "most-frequent"): 0.02}
    found = beside(
        ["prompt", "rag"],
        {"most-frequent": estimate(0.05), "always-unknown": estimate(0.1)},
        lambda arm, trivial: chances.get((arm, trivial), 0.9),
    )
    # 4 x .01, then 3 x .02 and more
    assert [one.not_beaten_by for one in found] == [("prompt",), ("prompt", "rag")]
    alone = beside(["rag"], {"always-unknown": estimate(0.1)}, lambda arm, trivial: chances[(arm, trivial)])
    assert alone[0].not_beaten_by == ()


def test_the_sentence_names_each_arm_once_beside_the_strongest_that_it_does_not_beat() -> None:
    weak = TrivialArm(arm="most-frequent", score=estimate(0.037), not_beaten_by=("prompt", "rag"))
    strong = TrivialArm(arm="always-unknown", score=estimate(0.111), not_beaten_by=("prompt", "few-shot"))
    beaten = TrivialArm(arm="nearest-answer", score=estimate(0.2))
    scores = {"prompt": 0.111, "few-shot": 0.12, "rag": 0.03}
    assert sentence([weak, strong, beaten], scores) == (
        f"{way('rag')} scores no higher than a fixed rule without a model, giving every question the same answer "
        f"(most-frequent: 0.037). {way('prompt')} scores no higher than a fixed rule without a model, saying to every "
        f"question that the answer is not known (always-unknown: 0.111). {way('few-shot')} is not shown to beat that "
        "rule (always-unknown)."
    )
    assert sentence([beaten], scores) == sentence([], scores) == ""


def test_a_trivial_arm_stands_in_files_with_its_score_beside_its_name() -> None:
    one = TrivialArm(arm="always-unknown", score=estimate(0.25), not_beaten_by=("prompt",))
    plain = to_plain(one)
    assert list(plain) == ["arm", "score", "low", "high", "n", "not_beaten_by"]
    assert from_plain(TrivialArm, plain) == one


def test_every_answer_without_a_model_has_its_words() -> None:
    assert set(WITHOUT_MODEL) == set(TRIVIAL)
