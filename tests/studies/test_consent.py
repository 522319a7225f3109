"""A task file from somebody else: nothing of what it asks for beyond its own folder happens before it was allowed."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openai_server import KEY, serving
from study_tasks import rows_of, write_task
from typer.testing import CliRunner

from trimtab import ask, check, study, train
from trimtab.base.errors import ConsentError, InputError, MissingError
from trimtab.base.task import Task, load_task
from trimtab.cli.main import app
from trimtab.measurement.scorer import ScorerProgram
from trimtab.studies.consent import config_file, require_consent
from trimtab.studies.eval import eval as score_arm
from trimtab.studies.run_context import run_context

API = '[api.big]\nurl = "{url}"\nmodel = "tiny"\nkey_env = "TINY_KEY"\n'
URL = "https://host.example/v1"


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Writes the user's own configuration."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def write(text: str) -> Path:
        config_file().parent.mkdir(parents=True, exist_ok=True)
        config_file().write_text(text)
        return config_file()

    return write


def with_api(folder: Path, url: str = URL, key: bool = True) -> Task:
    more = API.format(url=url)
    return load_task(write_task(folder, "nowhere", ["api-big"], more=more if key else more.replace("key_env", "# ")))


def require(task: Task, *allow: str, **more: Any) -> None:
    require_consent(task, [arm.endpoint for arm in task.arms if arm.endpoint], allow=allow, **more)


@pytest.mark.parametrize(
    ("url", "allow", "may"),
    [
        (URL, f"TINY_KEY@{URL}", True),
        (URL, f"TINY_KEY@{URL}/", True),
        (URL, "TINY_KEY@https://HOST.example:443", True),
        (URL, URL, False),  # the address, without the key
        (URL, f"OTHER_KEY@{URL}", False),
        (URL, "TINY_KEY", False),
        (URL, "TINY_KEY@http://host.example/v1", False),
        (URL, "TINY_KEY@https://host.example:8443/v1", False),
        (URL, "TINY_KEY@https://host.example/v", False),
        (URL, "TINY_KEY@https://host.example/v1/more", False),
        ("https://host.example.evil/v1", "TINY_KEY@https://host.example", False),
        ("https://host.example/v1/../other", f"TINY_KEY@{URL}", False),
        ("https://host.example/v1/%2e%2e/other", f"TINY_KEY@{URL}", False),
        (URL, "TINY_KEY@https://host.example:no", False),
    ],
)
def test_an_address_is_allowed_with_the_key_that_goes_there(tmp_path: Path, url: str, allow: str, may: bool) -> None:
    task = with_api(tmp_path, url)
    if may:
        require(task, allow)
        return
    with pytest.raises(ConsentError) as caught:
        require(task, allow)
    assert f"asks to send questions to {url} with the key in TINY_KEY; " in str(caught.value)
    assert f"--allow TINY_KEY@{url} (" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_address_without_a_key_is_allowed_by_itself_or_with_any_key(tmp_path: Path) -> None:
    task = with_api(tmp_path, key=False)
    with pytest.raises(ConsentError, match=f"--allow {URL} "):
        require(task)
    require(task, URL)
    require(task, f"OTHER_KEY@{URL}")


def test_a_store_of_passages_is_allowed_by_its_address_without_the_password(tmp_path: Path, tiny_model_folder) -> None:
    for store, shown in (
        ("s3://bucket/folder", "s3://bucket/folder"),
        ("postgresql://me:hidden@host/passages", "postgresql://me@host/passages"),
    ):
        more = f'[retrieval]\nstore = "{store}"'
        task = load_task(write_task(tmp_path, tiny_model_folder, ["prompt"], rows=rows_of(), more=more))
        for others in ((), ("s3://bucket",), ("s3://bucket/folder/more",)):
            with pytest.raises(ConsentError) as caught:
                require(task, *others)
            assert f"asks to keep its documents at {shown}; " in str(caught.value)
            assert f"--allow {shown} (" in str(caught.value)
            assert "hidden" not in str(caught.value)
        require(task, shown)


def test_nothing_is_sent_and_nothing_written_without_consent(tmp_path: Path, tiny_model_folder, monkeypatch) -> None:
    monkeypatch.setenv("TINY_KEY", KEY)
    with serving() as server:
        file = write_task(
            tmp_path, tiny_model_folder, ["prompt", "api-big"], rows=rows_of(), more=API.format(url=server.url)
        )
        for verb in (
            lambda: study(file, listeners=[]),
            lambda: score_arm(file, "api-big", listeners=[]),
            lambda: ask("Where?", task=file, arm="api-big", listeners=[]),
        ):
            with pytest.raises(ConsentError, match=f"--allow TINY_KEY@{server.url} "):
                verb()
        assert not (tmp_path / ".trimtab").exists()
        assert server.bodies == []
        told = [remark.text for remark in check(file, listeners=[]).remarks if server.url in remark.text]
        assert told == [
            f"A study asks to send questions to {server.url} with the key in TINY_KEY; unless your own "
            f"configuration allows it, add: --allow TINY_KEY@{server.url}"
        ]
        assert ask("Where?", task=file, arm="prompt", listeners=[]).arm == "prompt"  # its endpoint is not asked
        assert server.bodies == []
        ask("Where?", task=file, arm="api-big", allow=[f"TINY_KEY@{server.url}"], listeners=[])
        assert len(server.bodies) == 1


def outside(home: Path, kind: str) -> tuple[str, str, Path]:
    """A file beside the task's folder, named in one of many ways; the key that names it, how, and what has to be
    allowed."""
    other = home.parent / "other"
    (other / "deep").mkdir(parents=True)
    (other / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of()))
    (other / "deep" / "secret.md").write_text("# Secret\nhush")
    (other / "schema.json").write_text("{}")
    (home / "documents").mkdir()
    (home / "documents" / "own.md").write_text("# Own\nmine")
    if kind == "link":
        (home / "documents" / "notes.md").symlink_to(other / "deep" / "secret.md")
    if kind == "linked folder":
        (home / "linked").symlink_to(other / "deep")
    return {
        "absolute": ("examples", str(other / "rows.jsonl"), other / "rows.jsonl"),
        "upwards": ("test", "../other/rows.jsonl", other / "rows.jsonl"),
        "pattern": ("documents", "../other/**/*.md", other),
        "folder": ("documents", "../other/deep", other / "deep"),
        "link": ("documents", "documents/", other / "deep" / "secret.md"),
        "linked folder": ("documents", "linked/", other / "deep"),
        "schema": ("format", "../other/schema.json", other / "schema.json"),
    }[kind]


KINDS = ["absolute", "upwards", "pattern", "folder", "link", "linked folder", "schema"]


@pytest.mark.parametrize("kind", KINDS)
def test_files_elsewhere_are_read_once_they_are_allowed(tmp_path: Path, kind: str, configured) -> None:
    home = tmp_path / "task"
    home.mkdir()
    key, pattern, place = outside(home, kind)
    data = "" if key in ("format", "examples") else f"{key} = [{json.dumps(pattern)}]"
    file = write_task(home, "nowhere", ["prompt"], data=data)
    text = file.read_text()
    if key == "format":
        text = text.replace("[data]", f"format = {json.dumps(pattern)}\n[data]")
    if key == "examples":
        text = text.replace('["rows.jsonl"]', f'["rows.jsonl", {json.dumps(pattern)}]')
    file.write_text(text)
    for verb in (check, study, lambda task, **more: train(task, "lora", **more)):
        with pytest.raises(ConsentError) as caught:
            verb(file, listeners=[])
        assert f"asks to read {place}, outside its folder; " in str(caught.value)
        assert f"add: --allow {place} (" in str(caught.value)
    assert not (home / ".trimtab").exists()
    task = load_task(file)
    require(task, str(place))
    require(task, str(tmp_path))
    configured(f'allow = ["{place}"]')
    require(task)


def test_an_export_is_allowed_on_the_command_line_as_every_verb_is(tmp_path: Path, tiny_model_folder: Path) -> None:
    home, other = tmp_path / "task", tmp_path / "other"
    home.mkdir()
    other.mkdir()
    (other / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of()))
    file = write_task(home, tiny_model_folder, ["prompt"])
    file.write_text(file.read_text().replace('"rows.jsonl"', f'"{other / "rows.jsonl"}"'))
    given = ["export", "prompt", "--format", "bundle", "--out", str(tmp_path / "out"), "--task", str(file)]
    refused = CliRunner().invoke(app, given)
    assert (refused.exit_code, (tmp_path / "out").exists()) == (2, False)
    assert f"add: --allow {other / 'rows.jsonl'}" in refused.stderr
    assert CliRunner().invoke(app, [*given, "--allow", str(other)]).exit_code == 0
    assert (tmp_path / "out" / "bundle.json").is_file()


def test_what_lies_in_the_folder_needs_no_consent_wherever_the_command_is_given(tmp_path: Path, monkeypatch) -> None:
    home = tmp_path / "[2026]"
    (home / "documents").mkdir(parents=True)
    (home / "documents" / "a.md").write_text("# A\nmine")
    (home / "documents" / "b.md").symlink_to("a.md")
    write_task(home, "nowhere", ["prompt"], data='documents = ["documents/", "*.md"]')
    (home / "c.md").write_text("# C\nmine")
    (tmp_path / "short").symlink_to(home)
    for place in (home, home / "documents", tmp_path):
        monkeypatch.chdir(place)
        for file in (home / "trimtab.toml", tmp_path / "short" / "trimtab.toml"):
            require(load_task(file))


def test_many_links_are_told_as_the_folder_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    home = tmp_path / "task"
    (home / "documents").mkdir(parents=True)
    for number in range(9):
        (tmp_path / "store" / f"{number}.md").write_text("x")
        (home / "documents" / f"{number}.md").symlink_to(tmp_path / "store" / f"{number}.md")
    task = load_task(write_task(home, "nowhere", ["prompt"], data='documents = ["documents/"]'))
    with pytest.raises(ConsentError, match=f"asks to read {tmp_path / 'store'}, outside its folder; "):
        require(task)


def test_everything_lacking_is_told_in_one_line_with_a_command_that_can_be_pasted(tmp_path: Path) -> None:
    home, other = tmp_path / "task", tmp_path / "o'ther $(x)"
    home.mkdir()
    other.mkdir()
    (other / "a.md").write_text("x")
    scorer = 'kind = "generate"\nmetric = "scorer"\nscorer = ["rm", "-rf", "x y"]'
    data = f"documents = [{json.dumps(str(other))}]"
    task = load_task(
        write_task(home, "nowhere", ["prompt", "api-big"], task=scorer, data=data, more=API.format(url=URL))
    )
    with pytest.raises(ConsentError) as caught:
        require(task)
    assert str(caught.value) == (
        f"{home}/trimtab.toml: asks to run the program \"rm -rf 'x y'\" (read it first), "
        f"to send questions to {URL} with the key in TINY_KEY, to read {other}, outside its folder; if you want "
        f"that, add: --allow-commands --allow TINY_KEY@{URL} --allow '{tmp_path}/o'\"'\"'ther $(x)' "
        f"(for good, name them in {config_file()}, see docs/how-to/task-file.md#consent)"
    )
    require(task, f"TINY_KEY@{URL}", str(other), allow_commands=True)


def test_the_users_own_configuration_allows_for_good(tmp_path: Path, configured) -> None:
    (tmp_path / "mine").mkdir()
    scorer = f'kind = "generate"\nmetric = "scorer"\nscorer = ["{sys.executable}", "score.py"]'
    task = load_task(
        write_task(tmp_path / "mine", "nowhere", ["api-big"], task=scorer, more=API.format(url=f"{URL}/a"))
    )
    for place in ("mine/trimtab.toml", "mine"):
        configured(f'allow = ["TINY_KEY@{URL}"]\nallow_commands = ["{tmp_path}/{place}"]')
        require(task)
    configured(f'allow = ["TINY_KEY@{URL}"]\nallow_commands = ["{tmp_path}/other"]')
    with pytest.raises(ConsentError, match=r"add: --allow-commands \("):
        require(task)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("allow = 1", "allow: "),
        ("allow = [", "it holds two lists"),
        ("alow = []", "alow: "),
        ('allow = ["data"]', "'data' is no whole path; begin it with / or ~"),
        ('allow_commands = ["./x"]', "'./x' is no whole path"),
        ("\ud800", "it holds two lists"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_one_line(tmp_path: Path, configured, text: str, told: str) -> None:
    file = configured("")
    file.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(InputError, match=told) as caught:
        require(load_task(write_task(tmp_path, "nowhere", ["prompt"])))
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", [".", "studies", "openings.jsonl", "index/passages_1.lance"])
def test_a_link_in_our_own_folder_is_refused_before_anything_is_written(tmp_path: Path, place: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    home = tmp_path / "task"
    home.mkdir()
    link = home / ".trimtab" / place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(victim)
    file = write_task(home, "nowhere", ["prompt"])
    for verb in (check, study, lambda task, **more: ask("Where?", task=task, **more)):
        with pytest.raises(InputError, match="is a symbolic link, and Trimtab made none; delete it"):
            verb(file, listeners=[])
    assert list(victim.iterdir()) == []


def test_without_links_the_same_goes_on(tmp_path: Path) -> None:
    file = write_task(tmp_path, "nowhere", ["prompt"])
    (tmp_path / ".trimtab" / "studies").mkdir(parents=True)
    with pytest.raises(MissingError, match="nowhere"):
        study(file, listeners=[])


REWARD = '[reward]\nmetric = 1.0\ntests = 1.0\nprogram = { argv = ["python3", "judge.py"], weight = 0.5 }\n'


def rewarded(folder: Path) -> Task:
    rows = [{**one, "check": "assert True"} for one in rows_of()]
    data = 'columns = { input = "question", output = "answer", tests = "check" }'
    return load_task(write_task(folder, "nowhere", ["prompt"], rows=rows, data=data, more=REWARD))


def test_what_a_reward_runs_is_asked_for_where_answers_are_rewarded(tmp_path: Path) -> None:
    task = rewarded(tmp_path)
    require(task)
    with pytest.raises(ConsentError) as caught:
        require(task, rewards=list(task.reward.weights))
    assert "asks to run the program 'python3 judge.py' (read it first), to run code that the model writes" in str(
        caught.value
    )
    assert str(caught.value).count("--allow-commands") == 1
    assert "\n" not in str(caught.value)
    with pytest.raises(ConsentError, match="asks to run code that the model writes"):
        require(task, rewards=["tests"])  # a function in place of the program
    require(task, rewards=["metric"])
    require(task, allow_commands=True, rewards=list(task.reward.weights))


def test_a_reward_s_program_is_started_in_the_task_s_folder_and_a_function_takes_its_place(tmp_path: Path) -> None:
    body = (
        "import json, sys\nopen('started', 'w')\n"
        "for line in sys.stdin: print(json.dumps({'id': json.loads(line)['id'], 'score': 1}))\n"
    )
    (tmp_path / "judge.py").write_text(body)
    task = rewarded(tmp_path)
    with pytest.raises(ConsentError), run_context(task, rewards=True, listeners=[]):
        pass
    with run_context(task, rewards=True, allow_commands=True, listeners=[]) as ctx:
        assert not (tmp_path / "started").exists()
        program = ctx.reward_program
        assert isinstance(program, ScorerProgram)
        assert program.score([("a", "q", ("x",), "x")]) == {"a": 1.0}
        assert (tmp_path / "started").exists()
    with run_context(task, rewards=True, allow_commands=True, reward=lambda *_: 1.0, listeners=[]) as ctx:
        assert callable(ctx.reward_program)


def test_a_link_behind_the_name_of_a_sheet_lacks_consent_like_any(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "far.xlsx").write_bytes(b"PK")
    (tmp_path / "own" / "a.xlsx").symlink_to(tmp_path / "far.xlsx")
    tables = {"task": {"name": "t", "kind": "classify"}, "data": {"examples": ["a.xlsx#Sheet"]}}
    own = Task.model_validate({**tables, "file": tmp_path / "own" / "trimtab.toml"})
    with pytest.raises(ConsentError, match=re.escape(f"to read {tmp_path / 'far.xlsx'}, outside its folder")):
        require_consent(own, ())
