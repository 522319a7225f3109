"""What the top says in plain words: of 100 questions so many right, what is poor about that, what to do next."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from read_studies import changed

from trimtab.base.records import Answer, Failure
from trimtab.base.results import ClassRow, Estimate, TrivialArm, Verdict
from trimtab.reports.folder import ArmEntry, StudyFolder, read_study
from trimtab.reports.header import header_section
from trimtab.reports.page import write_report
from trimtab.reports.quality import quality_section
from trimtab.reports.summary import accuracy_in_words, next_step, weaknesses

Make = Callable[..., Path]
DUE, WITHHELD, INVENTED = "due", "withheld", "invented"  # abstained as it should, wrongly; answered wrongly


@pytest.fixture
def study(make_study: Make, tmp_path: Path) -> StudyFolder:
    return read_study(make_study(tmp_path, items=2))


def entry_of(study: StudyFolder, **counts: int) -> ArmEntry:
    """The arm `prompt` with so many answers of each kind."""
    one = study.arm("prompt")
    assert one is not None
    kinds: dict[str, tuple[Failure, bool]] = {
        "right": ("none", False), "wrong": ("wrong", False), "missed": ("retrieval_miss", False), DUE: ("none", True),
        WITHHELD: ("retrieval_miss", True), "misread": ("misread", False), INVENTED: ("should_have_abstained", False),
        "format": ("format", False),
    }  # fmt: skip
    made: list[Answer] = []
    for name, count in counts.items():
        failure, abstained = kinds[name]
        given = changed(one.answers[0], failure=failure, abstained=abstained, score=float(failure == "none"))
        made += [changed(given, item_id=f"{name}{number}") for number in range(count)]
    return changed(one, answers=tuple(made), passes=None)


def test_of_100_questions(study: StudyFolder) -> None:
    mixed = entry_of(study, right=60, due=3, wrong=20, missed=10, withheld=17, invented=10)
    assert accuracy_in_words(study, mixed) == (
        "Of 100 questions, prompt gets 53 right and 25 wrong, wrongly says of 14 that it does not know, "
        "and answers 8 that have no answer here."
    ), "with what is left over given to those that lost most by rounding"
    assert (
        accuracy_in_words(study, entry_of(study, right=2, wrong=1))
        == "Of 100 questions, prompt gets 67 right and 33 wrong."
    )
    assert accuracy_in_words(study, entry_of(study)) == ""


def test_a_graded_metric_gives_quartiles_and_calls_nothing_right(study: StudyFolder) -> None:
    graded = changed(study, metric="chrf", kind="generate")
    one = entry_of(study, right=8)
    spread = tuple(changed(answer, score=place / 8) for place, answer in enumerate(one.answers, 1))
    assert accuracy_in_words(graded, changed(one, answers=spread)) == (
        "Of 100 answers of prompt, 25 score at most 0.250, 50 at most 0.500 and 75 at most 0.750; "
        "chrF does not say which are right."
    )
    assert weaknesses(graded, one) == [
        "chrF says how near an answer comes to a reference, not whether it is right, and it does not see a “not” that "
        "turns an answer round: read some of them."
    ]
    assert "“not”" not in weaknesses(changed(study, metric="json_f1", kind="generate"), one)[0]
    exact = changed(one, answers=spread, extras={"exact": 0.25})
    assert accuracy_in_words(graded, exact).endswith("which are right. Exactly right are 25.0% of them.")
    written = quality_section(changed(graded, arms=(exact,))), header_section(changed(graded, arms=(exact,)))
    assert written[0].arms is not None
    assert "Exactly right" in [column.title for column in written[0].arms.columns]
    assert "; exactly right 25.0%" in written[1].facts[0].note


def test_what_is_poor_is_told_and_nothing_else(study: StudyFolder) -> None:
    assert weaknesses(study, entry_of(study, right=50, wrong=50)) == []
    assert weaknesses(study, entry_of(study, right=49, wrong=51)) == [
        "prompt gets fewer than half of the questions right."
    ]
    assert weaknesses(study, changed(entry_of(study, right=49, wrong=51), passes=True)) == [], "that much was asked for"
    assert weaknesses(study, entry_of(study, right=80, due=3, invented=2)) == []
    assert weaknesses(study, entry_of(study, right=80, due=2, invented=3)) == [
        "Of the questions that have no answer here, prompt answers 60% instead of saying so."
    ]
    assert weaknesses(study, entry_of(study, right=4, withheld=4, due=20)) == [
        "Of the questions that have an answer, prompt says of 50% that it does not know."
    ]
    assert weaknesses(study, entry_of(study, right=80, invented=3)) == [
        "Of the questions that have no answer here, prompt answers all instead of saying so."
    ]
    assert weaknesses(study, entry_of(study)) == []


def test_an_arm_that_does_not_beat_the_best_trivial_one_is_told(study: StudyFolder) -> None:
    scores = {"most-frequent": 0.1, "always-abstain": 0.3, "nearest": 0.7}
    trivial = tuple(
        TrivialArm(
            arm=name,
            score=Estimate(value=value, low=0.0, high=1.0, n=9),
            not_beaten_by=("rag",) if name == "nearest" else ("prompt", "rag"),
        )
        for name, value in scores.items()
    )
    told = "prompt is not shown to beat always-abstain, which takes no model (0.300)."
    assert weaknesses(changed(study, trivial=trivial), entry_of(study, right=9)) == [told]
    assert weaknesses(changed(study, trivial=trivial[2:]), entry_of(study, right=9)) == []


ABOUT = Verdict(status="not_shown", arm=None, sentence="s", needs="about 240 more test questions in new groups")
NEVER = Verdict(status="not_shown", arm=None, sentence="s", needs="not more test questions: the best score is too low")


def test_the_next_step_follows_from_the_verdict(study: StudyFolder) -> None:
    one = entry_of(study, right=1)
    assert "with trimtab ask" in next_step(study, one)
    assert "decide how good is good enough" in next_step(changed(study, target=None), one)
    assert next_step(changed(study, verdict=ABOUT), one) == (
        "Next: label about 240 more test questions in new groups, add them to the task’s examples, and run "
        "trimtab study again."
    )
    many_wrong = entry_of(study, right=2, wrong=1, missed=7)
    assert "mend the documents" in next_step(changed(study, verdict=ABOUT, target=None), many_wrong)
    assert next_step(changed(study, verdict=ABOUT), many_wrong).startswith("Next: label"), "a target may ask for little"
    never = changed(study, verdict=NEVER)
    assert "its score is not what is lacking" in next_step(never, changed(one, passes=True))
    for counts, told in (
        ({"wrong": 2, "missed": 3}, "the passage was not found"),
        ({"wrong": 3, "format": 2}, "nothing tells why"),
        ({"invented": 1}, "when to abstain"),
    ):
        assert told in next_step(never, entry_of(study, **counts))
    misread = entry_of(study, misread=2)
    assert "or one tuned on passages" in next_step(never, misread)
    tuned = changed(misread, arm=changed(misread.arm, stages=("sft",)))
    assert "or more training rows that have passages" in next_step(never, tuned), "it is tuned on them already"
    cut = changed(never, manifest={**never.manifest, "cuts": ["at most 0.25 epoch of training"]})
    assert next_step(cut, tuned).startswith("Next: give a new study more time, with trimtab study --budget")
    labels = next_step(changed(cut, verdict=ABOUT), one)
    assert labels.startswith("Next: give a new study more time"), "time costs less than labels"
    assert "then label about 240 more" in labels
    row = ClassRow(label="a", precision=0.5, recall=0.5, f1=0.5, support=3)
    assert "which classes prompt takes for which" in next_step(never, changed(entry_of(study, wrong=3), classes=(row,)))
    assert "score lowest" in next_step(changed(never, metric="rouge_l", kind="generate"), entry_of(study, format=2))
    assert "--resume --budget" in next_step(study, None)
    failed = changed(study, arms=(changed(study.arms[0], status="failed"),))
    assert "mend what failed" in next_step(failed, None)


def test_page_and_markdown_say_all_three(make_study: Make, tmp_path: Path) -> None:
    folder = make_study(tmp_path, arms=("prompt",))
    page, study_markdown = write_report(folder).read_text(), (folder / "report.md").read_text()
    header_section = page.split('<section id="quality">')[0]
    for text in (header_section, study_markdown):
        assert re.search(r"Of 100 questions, prompt gets \d\d right and \d\d wrong, wrongly says of \d\d ", text)
        assert "prompt gets fewer than half of the questions right." in text
        assert "\nNext: " in text.replace(">", "\n")
