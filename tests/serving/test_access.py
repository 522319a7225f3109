"""Keys on disk, and what a server refuses to start with."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from study_tasks import write_task
from typer.testing import CliRunner

from trimtab.base.errors import InputError
from trimtab.cli.main import app
from trimtab.serving.access import add_key, digest, is_loopback, read_keys
from trimtab.serving.serve import serve


def test_the_file_never_holds_a_key(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    first, second = add_key(file, "team-a"), add_key(file, "team-b")
    text = file.read_text()
    assert first not in text
    assert second not in text
    assert digest(first) in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    keys = read_keys(file)
    assert [key and key.name for key in map(keys.named, (first, second, first[:-1], ""))] == [
        "team-a",
        "team-b",
        None,
        None,
    ]
    with pytest.raises(InputError, match="a key is named 'team-a' already"):
        add_key(file, "team-a")
    file.write_text(text.replace(digest(first), digest(first).upper()))
    assert read_keys(file).named(first)


@pytest.mark.parametrize(
    "entry",
    [{}, 5, None, {"name": "a"}, {"name": "a", "sha256": "tt-plain"}, {"name": 5, "sha256": "0" * 64}, {"name": "a", "sha256": 5},
     {"name": "a", "sha256": "0" * 64, "per_minute": 0}, {"name": "a", "sha256": "0" * 64, "per_minute": True}],
)  # fmt: skip
def test_a_file_of_something_else_is_refused(tmp_path: Path, entry: object) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [entry]}))
    with pytest.raises(InputError, match=r"keys\.json: an entry is no key"):
        read_keys(file)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "127.0.0.1.evil.example"])
def test_an_address_that_others_reach_wants_keys(tmp_path: Path, host: str) -> None:
    task = write_task(tmp_path, "nowhere", ["prompt"])
    with pytest.raises(InputError, match=r"--host: .* is reached by others, and no keys are given"):
        serve(["prompt"], task=task, host=host)
    assert not is_loopback(host)
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "127.8.8.8")))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--keys", "none.json"], "none.json: does not exist; make it with: trimtab serve --new-key NAME --keys FILE"),
        (["--new-key", "a"], "--new-key: no file for the key; name one with --keys FILE"),
        (["--certificate", "a.pem"], "--certificate: one half of a certificate"),
        (["--host", "0.0.0.0"], "--host: 0.0.0.0 is reached by others"),
        (["--host", "no such host", "--keys", "keys.json"], "cannot listen on no such host:8000"),
    ],
)
def test_the_command_line_says_what_is_wrong_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_task(tmp_path, "nowhere", ["prompt"])
    add_key(tmp_path / "keys.json", "a")
    result = CliRunner().invoke(app, ["serve", "prompt", *given])
    assert result.exit_code == 2
    assert told in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_new_key_is_shown_once(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["serve", "--new-key", "team", "--keys", str(tmp_path / "keys.json")])
    assert result.exit_code == 0
    assert read_keys(tmp_path / "keys.json").named(result.stdout.strip())
