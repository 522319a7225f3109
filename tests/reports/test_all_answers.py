"""Every answer can be looked through on the page: all of them are there as data, and nothing in them can get out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from read_studies import changed

from trimtab.measurement.evaluate import load_answers
from trimtab.reports import all_answers as every_module
from trimtab.reports.all_answers import AllAnswers, all_answers_section, answers_json
from trimtab.reports.failures import QuestionView
from trimtab.reports.folder import StudyFolder, read_study
from trimtab.reports.labels import FAILURES
from trimtab.reports.page import write_report

Make = Callable[..., Path]
DATA = re.compile(r'<script type="application/json" id="every-data">(.*?)</script>', re.S)
HOSTILE = "</script><!--<script>\u2028</SCRIPT ><img src=x onerror='alert(1)'>\"&lt;]]>"


def every_of(study: StudyFolder) -> AllAnswers:
    found = all_answers_section(study)
    assert found is not None
    return found


def unpacked(text: str) -> list[dict[str, Any]]:
    """The answers of the data of a page, each with its question."""
    data = json.loads(text)
    texts, rows = data["texts"], []
    for question, reference, part, answers in data["questions"]:
        for arm, score, failure, said, passages, seed in answers:
            named = {"question": question, "reference": reference, "slice": part, "score": score, "failure": failure}
            named |= {"text": said, "passages": passages, "seed": seed}
            rows.append({"arm": arm, **{name: texts[place] for name, place in named.items()}})
    return rows


def test_every_test_answer_is_in_the_page(make_study: Make, tmp_path: Path) -> None:
    folder = make_study(tmp_path, items=30)
    (data,) = DATA.findall(write_report(folder).read_text())
    arms = [one.name for one in every_of(read_study(folder)).arms]
    given = {(arms[row["arm"]], row["question"], row["text"], row["score"], row["failure"]) for row in unpacked(data)}
    due = {
        (arm, one.input, one.answer, f"{one.score:.3f}", "" if one.failure == "none" else FAILURES[one.failure][0])
        for arm in arms
        for one in load_answers(folder / "arms" / arm / "answers.parquet")
    }
    assert given == due
    assert len(unpacked(data)) == 5 * 30


def test_nothing_in_the_data_ends_its_element_or_is_lost(make_study: Make, tmp_path: Path) -> None:
    folder = make_study(tmp_path, items=6, hostile=HOSTILE)
    page = write_report(folder).read_text()
    assert page.lower().count("<script") == page.lower().count("</script") == 2
    assert "<!--" not in page
    assert all(row["text"].endswith(HOSTILE) for row in unpacked(DATA.findall(page)[0]))


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=40))
def test_any_text_comes_back_from_the_data(text: str) -> None:
    question = QuestionView(question=text, reference="r", answers=(), slice="s")
    every = AllAnswers(
        heading=None, arms=(), kinds=(), slices=(), questions=(question,), without="", left_out=""  # type: ignore[arg-type]
    )  # fmt: skip
    written = answers_json(every)
    assert not set("<>&") & set(written)
    texts = json.loads(written)["texts"]
    assert texts[0] == re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]", "\ufffd", text)


def test_what_can_be_chosen(make_study: Make, tmp_path: Path) -> None:
    study = read_study(make_study(tmp_path, items=60))
    every = every_of(study)
    assert [one.name for one in every.arms] == [one.name for one in study.done]
    assert every.kinds[0] == "right"
    assert set(every.kinds[1:]) == {
        FAILURES[answer.failure][0] for arm in study.arms for answer in arm.answers if answer.failure != "none"
    }
    assert every.slices == ("benefits", "rare topics", "security")
    assert "seed" not in answers_json(every)
    alone = changed(study, arms=tuple(changed(arm, answers=arm.answers[:1]) for arm in study.arms))
    assert every_of(alone).slices == (), "of one there is no choice"
    assert "right" not in every_of(changed(study, metric="chrf", kind="generate")).kinds, (
        "a graded metric says of none that it is right"
    )
    assert all_answers_section(changed(study, arms=())) is None


def test_of_several_seeds_each_answer_names_its_own(make_study: Make, tmp_path: Path) -> None:
    study = read_study(make_study(tmp_path, items=4, arms=("lora",)))
    again = tuple(changed(answer, seed=18) for answer in study.arms[0].answers)
    rows = unpacked(
        answers_json(every_of(changed(study, arms=(changed(study.arms[0], answers=study.arms[0].answers + again),))))
    )
    assert sorted(row["seed"] for row in rows) == ["seed 17"] * 4 + ["seed 18"] * 4


def test_a_large_study_fills_a_page_and_says_what_is_left_out(
    make_study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole questions are left out, drawn by the hash of their ids, so that those in the page are a fair sample."""
    study = read_study(make_study(tmp_path, hostile="ä<\u4e2d" * 20))
    assert every_of(study).left_out == ""
    monkeypatch.setattr(every_module, "MOST_BYTES", 60_000)
    every = every_of(study)
    kept = len(every.questions)
    assert 0.5 * 60_000 < len(answers_json(every).encode()) < 60_000
    assert every.left_out.startswith(f"This page holds {kept:,} of 300 questions, drawn at random")
    assert all(len(question.answers) == 5 for question in every.questions)
    assert {question.slice for question in every.questions} == {"benefits", "security", "rare topics"}
    assert every_of(study) == every
    assert every.left_out in write_report(tmp_path).read_text()


def test_the_page_is_whole_without_the_script(make_study: Make, tmp_path: Path) -> None:
    """What the script shows is hidden until it runs, and what stood in the page before it stands there still."""
    page = write_report(make_study(tmp_path, items=40)).read_text()
    assert '<div id="every-look" hidden>' in page
    bare = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    section = bare.split('<section id="every">')[1].split("</section>")[0]
    assert "Where this page may run its script" in section.split('id="every-look"')[0]
    for name in ("failures", "answers", "quality", "comparisons"):
        assert bare.count(f'<section id="{name}">') == 1
    assert bare.split('<section id="answers">')[1].split("</section>")[0].count('class="example"') == 4
