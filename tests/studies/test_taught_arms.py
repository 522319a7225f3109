"""Arms that imitate a teacher: a model loaded beside, or an endpoint that is asked once; trained, resumed, paid for,
and refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from openai_server import KEY, serving
from study_tasks import CLASSIFY, LABELLED, Killed, arm_of, begin_with_time, folder_of, rows_of, write_task

from trimtab import ask, check, study, train
from trimtab.arms.fingerprint import TRAINED_BY, fingerprint_of
from trimtab.arms.planning.predict import predict
from trimtab.arms.session import open_session
from trimtab.arms.teacher import TAUGHT
from trimtab.arms.workspace import open_workspace
from trimtab.base.errors import ConsentError, InputError, MissingError, RemoteError
from trimtab.base.results import StudyResult
from trimtab.base.task import load_task, parse_arm

MORE = """
[arm.own-distill]
weights = "lora"
stages = ["distill"]
rank = 4
batch = 8
epochs = 2
learning_rate = 5e-3
"""
DATA = 'group = "pair"\nsplit = { dev = 0.25, test = 0.25, seed = 0 }'


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """Another model with the same tokens."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("teacher") / "model"
    shutil.copytree(tiny_model_folder, folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.norm.weight += 0.5 * torch.randn(32, generator=torch.Generator().manual_seed(0))
    model.save_pretrained(folder)
    return folder


def a_task(folder: Path, model: Path, taught: str, **more: Any) -> Path:
    folder.mkdir(exist_ok=True)
    given = {"arms": ["own-distill"], "data": DATA, "rows": rows_of(60), "more": MORE, **more}
    given["more"] += f"\n[teacher]\n{taught}\n"
    return write_task(folder, model, given.pop("arms"), **given)


def endpoint(url: str, *, price: bool = False) -> str:
    """The tables of a teacher behind an address."""
    table = f'api = "big"\n[api.big]\nurl = "{url}"\nmodel = "tiny"\nkey_env = "TEACHER_KEY"\n'
    priced = 'price_per_million = { input = 100.0, output = 200.0, as_of = 2026-11-01, source = "a list" }\n'
    hour = '[cost]\nmachine_hour = { price = 0.4, as_of = 2026-11-01, source = "a contract" }\n'
    return table + (priced + hour if price else "")


def weights_of(task: Path, result: StudyResult) -> bytes:
    run = folder_of(task, result) / "arms" / "own-distill" / "run-0"
    return (run / "adapter" / "adapter_model.safetensors").read_bytes()


def dies_at(happens: Callable[[dict[str, Any]], bool]) -> Callable[[dict[str, Any]], None]:
    def kill(event: dict[str, Any]) -> None:
        if happens(event):
            raise Killed

    return kill


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path, teacher: Path
) -> tuple[Path, StudyResult, list[dict[str, Any]]]:
    task, events = a_task(tmp_path_factory.mktemp("taught"), tiny_model_folder, f'model = "{teacher}"'), []
    return task, study(task, listeners=[events.append]), events


def test_a_teacher_with_the_same_tokens_is_imitated_by_its_distribution(
    whole: tuple[Path, StudyResult, list[dict[str, Any]]],
) -> None:
    task, result, events = whole
    assert arm_of(result, "own-distill").status == "done"
    assert any("are imitated by their distribution" in event.get("note", "") for event in events)
    looks = [event["dev_loss"] for event in events if event["stage"] == "dev"]
    assert looks[-1] < 0.9 * looks[0]
    assert min(looks) > 0
    kept = (folder_of(task, result) / TAUGHT).read_text().splitlines()
    splits = open_workspace(load_task(task)).splits
    assert len(kept) == len(splits["train"]) + len(splits["dev"])
    assert ask("Which one?", task=task, arm="own-distill", listeners=[]).arm == "own-distill"


@pytest.mark.parametrize(
    "moment",
    [
        lambda event: event["stage"] == "answer" and event.get("note") == "the teacher",
        lambda event: event["stage"] == "train" and event.get("step") == 3,
    ],
)
def test_a_study_that_was_killed_ends_alike(
    moment: Callable[[dict[str, Any]], bool],
    whole: tuple[Path, StudyResult, list[dict[str, Any]]],
    tmp_path: Path,
    tiny_model_folder: Path,
    teacher: Path,
) -> None:
    task = a_task(tmp_path / "killed", tiny_model_folder, f'model = "{teacher}"')
    with pytest.raises(Killed):
        study(task, listeners=[dies_at(moment)])
    kept = folder_of(task) / TAUGHT
    kept.write_text("".join(kept.read_text().splitlines(keepends=True)[:7]))  # as if it had died while it wrote them
    again = study(task, resume="latest", listeners=[])
    assert weights_of(task, again) == weights_of(whole[0], whole[1])


def test_a_teacher_with_other_tokens_is_imitated_by_its_text(
    tmp_path: Path, tiny_model_folder: Path, teacher: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(teacher, other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    words["A"], words["B"] = words["B"], words["A"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    events: list[dict[str, Any]] = []
    run = train(
        a_task(tmp_path / "task", tiny_model_folder, f'model = "{other}"'), "own-distill", listeners=[events.append]
    )
    assert run.steps > 0
    assert any("are imitated by their text" in event.get("note", "") for event in events)
    assert (run.folder / TAUGHT).is_file()


def test_labels_of_a_teacher_are_imitated(tmp_path: Path, tiny_model_folder: Path, teacher: Path) -> None:
    data = f"{DATA}\n{LABELLED}"
    task = a_task(tmp_path / "task", tiny_model_folder, f'model = "{teacher}"', task=CLASSIFY, data=data)
    run = train(task, "own-distill", listeners=[])
    said = {json.loads(line)["text"] for line in (run.folder / TAUGHT).read_text().splitlines()}
    assert said <= set(open_workspace(load_task(task)).labels)


def test_an_endpoint_is_asked_once_with_consent_and_its_fee_is_counted(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    with serving() as server:
        server.says = "Bonn"
        tables, arms = endpoint(server.url, price=True), ["own-distill", "other"]
        more = f'{MORE}[arm.other]\nweights = "ia3"\nstages = ["distill"]\nepochs = 1\n'
        task = a_task(tmp_path / "task", tiny_model_folder, tables, rows=rows_of(40), arms=arms, more=more)
        with pytest.raises(ConsentError, match=r"to send questions to .* with the key in TEACHER_KEY"):
            study(task, listeners=[])
        assert any("to send questions to" in remark.text for remark in check(task, listeners=[]).remarks)
        assert not server.bodies
        allow = [f"TEACHER_KEY@{server.url}"]
        with pytest.raises(Killed):
            study(task, allow=allow, listeners=[dies_at(lambda event: event["stage"] == "train")])
        splits = open_workspace(load_task(task)).splits
        assert len(server.bodies) == len(splits["train"]) + len(splits["dev"])
        result = study(task, resume="latest", allow=allow, listeners=[])
        assert len(server.bodies) == len(splits["train"]) + len(splits["dev"])
    asked = {body["messages"][-1]["content"] for body in server.bodies}
    assert not asked & {example.input for example in splits["test"]}
    kept = [json.loads(line) for line in (folder_of(task, result) / TAUGHT).read_text().splitlines()]
    fee = sum(100 * line["prompt_tokens"] + 200 * line["new_tokens"] for line in kept) / 1e6
    usage = json.loads((folder_of(task, result) / "arms" / "own-distill" / "arm.json").read_text())["usage"]
    assert usage["choose_fee"] == pytest.approx(fee)
    assert ask("Which one?", task=task, arm="own-distill", listeners=[]).arm == "own-distill"  # asks no teacher


def test_an_endpoint_that_cannot_be_asked_ends_training_with_what_to_do(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = a_task(tmp_path / "task", tiny_model_folder, endpoint("http://127.0.0.1:9/v1"), rows=rows_of(24))
    allow = ["TEACHER_KEY@http://127.0.0.1:9/v1"]
    with pytest.raises(InputError, match="the environment variable TEACHER_KEY is not set"):
        train(task, "own-distill", allow=allow, listeners=[])
    monkeypatch.setenv("TEACHER_KEY", "wrong")
    with serving() as server:
        task = a_task(tmp_path / "again", tiny_model_folder, endpoint(server.url), rows=rows_of(24))
        with pytest.raises(RemoteError, match="check the key in TEACHER_KEY"):
            train(task, "own-distill", allow=[f"TEACHER_KEY@{server.url}"], listeners=[])


def test_with_effort_the_stage_is_searched_and_the_teacher_loaded_once(
    tmp_path: Path, tiny_model_folder: Path, teacher: Path
) -> None:
    more = '[arm.free]\nweights = "lora"\nstages = ["distill"]\nepochs = 1\n'
    task = a_task(
        tmp_path / "effort",
        tiny_model_folder,
        f'model = "{teacher}"',
        arms=["free"],
        more=more,
        effort="thorough",
        rows=rows_of(24),
    )
    begin_with_time(task)
    events: list[dict[str, Any]] = []
    effort = arm_of(study(task, resume="latest", listeners=[events.append]), "free").effort
    assert effort is not None
    assert len({trial.what.get("rank") for trial in effort.trials}) > 1
    assert len([event for event in events if "are imitated" in event.get("note", "")]) == 1


def test_a_teacher_that_cannot_be_is_refused_in_one_line(
    tmp_path: Path, tiny_model_folder: Path, teacher: Path
) -> None:
    def problem(taught: str) -> InputError:
        with pytest.raises(InputError) as caught:
            load_task(a_task(tmp_path / "task", tiny_model_folder, taught))
        return caught.value

    assert "needs a teacher and there is none" in str(problem(""))
    assert "there is no [api.big] table" in str(problem('api = "big"'))
    assert "take one of them out" in str(problem(f'api = "big"\nmodel = "{teacher}"'))
    assert "from which nothing can be learnt" in str(problem(f'model = "{tiny_model_folder}"'))
    assert "revision is that of a model" in str(problem('revision = "main"'))
    with pytest.raises(MissingError, match="trimtab pull smollm2-360m"):
        train(a_task(tmp_path / "task", tiny_model_folder, 'model = "smollm2-360m"'), "own-distill", listeners=[])


def test_weights_depend_on_the_teacher_that_they_learn_from(
    tmp_path: Path, tiny_model_folder: Path, teacher: Path
) -> None:
    def depends(name: str, arm: str, taught: str) -> dict[str, str]:
        task = load_task(a_task(tmp_path / name, tiny_model_folder, taught, rows=rows_of(24)))
        return fingerprint_of(open_session(open_workspace(task)), [parse_arm(arm, task)], TRAINED_BY)

    one, other = f'model = "{teacher}"', endpoint("http://127.0.0.1:9/v1")
    changed = other.replace('"tiny"', '"another"')
    assert "weights of the teacher" in depends("a", "own-distill", one)
    assert depends("b", "own-distill", other) != depends("c", "own-distill", changed)
    assert depends("d", "lora", one) == depends("e", "lora", other)


def test_the_plan_counts_the_teacher(tmp_path: Path, tiny_model_folder: Path, teacher: Path) -> None:
    more = '[arm.plain]\nweights = "lora"\nrank = 4\nbatch = 8\nepochs = 2\n'
    task = load_task(a_task(tmp_path / "plan", tiny_model_folder, f'model = "{teacher}"', more=MORE + more))
    session = open_session(open_workspace(task))
    taught, plain = predict(session, [parse_arm(name, task) for name in ("own-distill", "plain")])
    assert taught.problem is None
    assert taught.stages[0].teacher_seconds > 0
    assert plain.stages[0].teacher_seconds == 0
    assert taught.stages[0].seconds(0.25) > taught.stages[0].teacher_seconds
