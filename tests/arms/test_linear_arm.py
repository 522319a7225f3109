"""The `linear` arm in a session: hidden states of the base are looked at when there is time and a base, and only of
the same one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from study_tasks import CLASSIFY, LABELLED, rows_of, write_task

from trimtab.arms.contexts import Context, PromptBuilder
from trimtab.arms.linear import fit_linear, fits_budget, input_template, linear_answerer
from trimtab.arms.planning.linear import plan_linear
from trimtab.arms.search.context_search import SEARCH_SPACES
from trimtab.arms.session import Session, open_session
from trimtab.arms.trainer import TrainingSearch, train_weights
from trimtab.arms.workspace import open_workspace
from trimtab.base.errors import InputError
from trimtab.base.progress import Progress
from trimtab.base.task import load_task, parse_arm, with_rows
from trimtab.measurement.metrics import macro_f1_statistic
from trimtab.model.adapters.apply import add_lora
from trimtab.training.linear import KINDS, PENALTIES, load_linear

LONG = 1e6  # seconds


@pytest.fixture
def session(tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path) -> Session:
    base = f'embedding = "{tiny_embedding_folder}"'
    model = shutil.copytree(tiny_model_folder, tmp_path / "base")
    task = write_task(tmp_path, model, ["linear"], rows=rows_of(80), task=CLASSIFY, data=LABELLED, base=base)
    return open_session(open_workspace(load_task(task)), "fp32")


@pytest.fixture
def hidden_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.training.linear.KINDS", ("hidden",))


def test_hidden_states_join_when_there_is_time_for_them(session: Session, tmp_path: Path) -> None:
    usual = fit_linear(session, tmp_path / "usual")
    assert session._base is None  # nothing of the base is asked for
    short, long = (fit_linear(session, tmp_path / str(time), search_seconds=time) for time in (1e-9, LONG))
    kinds = [{trial.choice.features for trial in fitted.trials} for fitted in (usual, short, long)]
    assert kinds == [set(KINDS[:-1]), set(KINDS[:-1]), set(KINDS)]
    assert short.stopped == "budget", "hidden states were left out for lack of time"
    at_an_end = usual.kept.choice.penalty in (PENALTIES[0], PENALTIES[-1])
    assert usual.stopped == ("edge of the ladder" if at_an_end else "no trial was better")


@pytest.mark.parametrize("features", ["words", "embedding", "hidden"])
def test_a_fit_like_another_one_takes_its_features_and_penalty(
    session: Session, tmp_path: Path, features: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("trimtab.training.linear.KINDS", (features,))
        fit_linear(session, tmp_path / "first", search_seconds=LONG)
    first = load_linear(tmp_path / "first")
    again = fit_linear(session, tmp_path / "again", like=tmp_path / "first")
    assert [trial.choice for trial in again.trials] == [first.choice]
    assert first.choice.features == features
    assert np.array_equal(load_linear(tmp_path / "again").weights_CF, first.weights_CF)


def test_without_a_base_they_are_not_offered(session: Session, tmp_path: Path) -> None:
    table = session.task.base.model_copy(update={"model": "smollm2-360m-of-nobody"})
    session = Session(replace(session.workspace, task=session.task.model_copy(update={"base": table})))
    fitted = fit_linear(session, tmp_path / "adapter", search_seconds=LONG)
    assert {trial.choice.features for trial in fitted.trials} == set(KINDS[:-1])
    assert fitted.stopped != "budget"


@pytest.mark.usefixtures("hidden_alone")
def test_answers_are_those_of_the_saved_fit_also_after_another_arm(session: Session, tmp_path: Path) -> None:
    fit_linear(session, tmp_path, search_seconds=LONG)
    model, dev = load_linear(tmp_path), session.workspace.splits["dev"]
    add_lora(session.base, 4, 8, 0)  # what an arm before it left on the base
    for name, value in session.base.model.named_parameters():
        if "lora" in name.lower():
            value.data += 0.5
    given = linear_answerer(session, tmp_path)(PromptBuilder(session, Context(), fits=False).prompts(dev))
    assert np.mean([one.text == row.references[0] for one, row in zip(given, dev, strict=True)]) == model.dev_score
    assert all(sum(one.probabilities.values()) == pytest.approx(1) for one in given)


@pytest.mark.usefixtures("hidden_alone")
def test_hidden_states_of_another_base_are_refused(session: Session, tmp_path: Path) -> None:
    fit_linear(session, tmp_path / "adapter", search_seconds=LONG)
    file = session.base_folder / "model.safetensors"
    tensors = load_file(file)
    save_file({name: value + 1e-3 for name, value in tensors.items()}, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match="another base model; train it again"):
        linear_answerer(session, tmp_path / "adapter")


def test_a_text_longer_than_the_context_is_cut(session: Session) -> None:
    short, long = session.mean_hidden_states(["word"]), session.mean_hidden_states(["word " * 2_000])
    assert short.shape == long.shape
    assert np.isfinite(long).all()


@pytest.mark.parametrize("effort", ["standard", "thorough"])
def test_without_a_search_all_that_is_fitted_is_its_training(session: Session, tmp_path: Path, effort: str) -> None:
    arm, menu = parse_arm("linear", session.task), SEARCH_SPACES[effort]
    plain, searched = (
        train_weights(session, arm, Context(), tmp_path / name, Progress(), search=search)
        for name, search in (("plain", None), ("searched", TrainingSearch(menu=menu, seconds=LONG)))
    )
    assert plain.effort is None
    assert plain.seconds > 0
    assert searched.effort is not None
    assert len(searched.effort.trials) > len(KINDS)
    read = {trial.what["features"] for trial in searched.effort.trials}
    assert ("hidden" in read) == (effort == "thorough"), "hidden states cost the most and seldom win"


def test_an_input_of_several_columns_is_read_apart_as_the_task_file_names_them() -> None:
    def template_of(columns: object) -> tuple[str, ...]:
        return input_template(SimpleNamespace(data=SimpleNamespace(columns={"input": columns})))

    assert template_of("Q: {question}\nA: {answer}.") == ("Q: ", "\nA: ", ".")
    assert template_of(("question", "answer")) == ("", "\n\n", "")
    assert template_of("question") == template_of(("question",)) == template_of("Q: {question}") == ()
    assert template_of(tuple("abcde")) == ()
    assert input_template(SimpleNamespace(data=SimpleNamespace(columns={}))) == ()


def test_embeddings_that_do_not_fit_the_budget_are_left_out_not_the_arm(session: Session, tmp_path: Path) -> None:
    kinds = {}
    for budget in ("1s", "10h"):
        study = session.task.study.model_copy(update={"budget": budget})
        task = session.task.model_copy(update={"study": study})
        limited = Session(replace(session.workspace, task=task))
        assert fits_budget(limited, 0.02) == (budget == "10h")
        fitted = fit_linear(limited, tmp_path / budget)
        kinds[budget] = {trial.choice.features for trial in fitted.trials}
        if budget == "1s":
            assert not fits_budget(limited, 1.0)
        plan = plan_linear(limited, parse_arm("linear", task), lambda texts: 1.0 * len(texts), is_timed=True)
        assert (plan.answer_seconds < 1) == (budget == "1s"), "the plan knows what the fit will do"
    assert kinds["10h"] == set(KINDS[:-1])


def test_the_metric_of_the_task_chooses(session: Session, tmp_path: Path) -> None:
    table = session.task.task.model_copy(update={"metric": "macro_f1"})
    session = Session(replace(session.workspace, task=session.task.model_copy(update={"task": table})))
    fitted, dev = fit_linear(session, tmp_path), session.workspace.splits["dev"]
    given = linear_answerer(session, tmp_path)(PromptBuilder(session, Context(), fits=False).prompts(dev))
    score = macro_f1_statistic([one.text for one in given], [row.references for row in dev])(np.arange(len(dev)))
    assert fitted.kept.dev_score == pytest.approx(score)


def test_a_sample_of_rows_leaves_the_arm_all_training_rows(session: Session, tmp_path: Path) -> None:
    whole = session.workspace
    sampled = open_workspace(with_rows(session.task, 30), refuse_leaks=False)
    assert len(sampled.splits["train"]) < len(whole.splits["train"])
    assert set(sampled.training_rows("linear")) == set(whole.splits["train"])
    assert sampled.training_rows("lora") == sampled.splits["train"], "other arms keep to the sample"
    assert any("`linear` takes seconds, so it learns from" in note for note in sampled.notes)
    few = sampled.with_training_rows(sampled.splits["train"][:10])
    assert few.training_rows("linear") == sampled.splits["train"][:10], "a learning curve restricts it, too"


def test_a_training_row_outside_the_sample_counts_as_a_leak_too(session: Session) -> None:
    rows = rows_of(80)
    asked = [{**rows[number], "id": f"test{number}"} for number in range(0, 80, 8)]
    (session.task.folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    (session.workspace.folder / "splits.parquet").unlink()
    data = session.task.data.model_copy(update={"test": ("test.jsonl",)})
    leaking = session.task.model_copy(update={"data": data})
    whole, sampled = (open_workspace(with_rows(leaking, rows), refuse_leaks=False) for rows in (None, 30))
    used = {row.id for row in sampled.splits["test"]}
    assert {one.right.id for one in sampled.overlaps} == {one.right.id for one in whole.overlaps} & used
    assert sampled.overlaps
