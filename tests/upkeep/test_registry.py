"""The registry: versions never change, aliases move one after the other, and files are whole or told to be damaged."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from filling import fill
from forked import run
from postgres_server import execute
from registered import DRAFT, Add, collect_one_of_three

import trimtab
from trimtab.base.codec import from_plain, to_plain
from trimtab.base.errors import ConsentError, InputError, MissingError, RemoteError, os_error_message
from trimtab.base.files import FORM
from trimtab.base.task import Task, load_task
from trimtab.upkeep import registry as module
from trimtab.upkeep.artifacts import Artifacts
from trimtab.upkeep.registry import GateClosedError, Registry, registry
from trimtab.upkeep.versions import GateRecord, Move, Version


def gate(passed: bool | None) -> GateRecord:
    return GateRecord(old_test=None, new_test=None, forgetting=None, latency=None, passed=passed)


def test_versions_come_back_as_they_were_registered(opened: Registry, add: Add) -> None:
    first, second = add(opened, "one"), add(opened, "two")
    assert (first.number, second.number) == (1, 2)
    assert first.artifact_sha256 != second.artifact_sha256
    assert opened.show(1) == first == replace(DRAFT, number=1, artifact_sha256=first.artifact_sha256)
    assert [one.version for one in opened.list()] == [2, 1]
    assert from_plain(Version, to_plain(first)) == first


def test_an_alias_moves_and_every_move_is_kept(opened: Registry, add: Add) -> None:
    for text in "abc":
        add(opened, text)
    opened.promote(1, why="the first", by="jo")
    opened.promote(3, "candidate", why="to try")
    opened.promote(2, why="better", evidence=gate(True))
    assert opened.current().number == opened.show("production").number == 2
    moves = opened.history("production")
    assert [(one.previous, one.version, one.kind, one.why) for one in moves] == [
        (1, 2, "promote", "better"),
        (None, 1, "promote", "the first"),
    ]
    assert (moves[0].evidence, moves[1].who) == (gate(True), "jo")
    assert len(opened.history()) == 3
    assert {one.aliases for one in opened.list()} == {"production", "candidate", ""}
    plain = to_plain(moves[0])
    assert {"alias", "version", "from", "when", "who", "why", "kind", "evidence"} <= plain.keys()
    assert from_plain(Move, plain) == moves[0]


def test_a_version_that_is_taken_back_is_no_candidate_any_more(opened: Registry, add: Add) -> None:
    for text in "abc":
        add(opened, text)
    opened.promote(1, why="first")
    opened.promote(2, "candidate", why="to try")
    opened.promote(2, why="better")
    opened.rollback(why="worse in use", by="jo", dry_run=True)
    assert opened.current("candidate").number == 2
    opened.rollback(why="worse in use", by="jo")
    moves = opened.history("candidate")
    assert [(move.previous, move.version, move.who) for move in moves[:1]] == [(2, 1, "jo")]
    assert moves[0].why == "version 2 was taken back: worse in use"
    opened.promote(3, "candidate", why="to try")
    opened.promote(2, why="once more")
    opened.rollback(why="no")
    assert opened.current("candidate").number == 3  # a version that was not taken back stays candidate


def test_a_rollback_goes_one_promotion_back_and_a_second_one_further(opened: Registry, add: Add) -> None:
    for text in "abc":
        add(opened, text)
        opened.promote(int(opened.list()[0].version), why="next")
    assert [opened.rollback(why="worse").version for _ in range(2)] == [2, 1]
    with pytest.raises(
        MissingError,
        match=r"production has named version 1 alone, .*: trimtab registry promote",
    ):
        opened.rollback(why="worse still")
    opened.promote(3, why="it was right after all")
    assert opened.rollback(why="no").version == 1
    with pytest.raises(MissingError, match="candidate names no version"):
        opened.rollback("candidate", why="nothing there")


def test_what_cannot_be_moved_is_said_and_changes_nothing(opened: Registry, add: Add) -> None:
    add(opened)
    opened.promote(1, why="first")
    refused: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (MissingError, "no version 2 of small", {"version": 2, "why": "x"}),
        (MissingError, "no version -1 of small", {"version": -1, "why": "x"}),
        (MissingError, "no version", {"version": 2**70, "why": "x"}),
        (InputError, "production names version 1 already", {"version": 1, "why": "x"}),
        (InputError, "--why: no reason is given", {"version": 1, "why": " "}),
        (InputError, "--why: a reason of 2,001 letters", {"version": 1, "why": "x" * 2001}),
        (InputError, "--alias: 'Prod' is no name", {"version": 1, "alias": "Prod", "why": "x"}),
        (InputError, "--alias: '1' is no name", {"version": 1, "alias": "1", "why": "x"}),
        (GateClosedError, "was not passed", {"version": 1, "alias": "b", "why": "x", "evidence": gate(False)}),
        (GateClosedError, "shows nothing .* no pass", {"version": 1, "alias": "b", "why": "x", "evidence": gate(None)}),
    ]
    for kind, message, given in refused:
        with pytest.raises(kind, match=message) as told:
            opened.promote(**given)
        assert "\n" not in str(told.value)
    assert GateClosedError.exit_code == 1
    assert len(opened.history()) == 1
    with pytest.raises(
        MissingError,
        match=r"no alias candidate of small .*: trimtab refresh .*: trimtab canary start --version VERSION",
    ):
        opened.current("candidate")


def test_a_dry_run_tells_what_would_be_and_changes_nothing(own: Registry, add: Add, tmp_path: Path) -> None:
    for text in "abcd":
        add(own, text)
    own.promote(1, why="first")
    own.promote(4, why="second")

    def state() -> tuple[object, list[str]]:
        return own.lineage(), sorted(path.name for path in (tmp_path / ".trimtab" / "artifacts").iterdir())

    before = state()
    moved = own.promote(3, why="third", dry_run=True)
    assert (moved.number, moved.version, moved.previous) == (None, 3, 4)
    assert own.rollback(why="back", dry_run=True).version == 1
    would = own.gc(1, dry_run=True)
    assert state() == before
    did = own.gc(1)
    assert replace(did, dry_run=True) == would
    assert did.versions == (2, 3)
    assert state() != before


def test_gc_takes_no_file_of_what_an_alias_or_its_last_moves_name(own: Registry, add: Add, tmp_path: Path) -> None:
    for text in "abcdef":
        add(own, text)
    for number in (1, 2, 3):
        own.promote(number, why="next")
    own.promote(4, "candidate", why="to try")
    done = own.gc(1)
    assert done.versions == (1, 5)  # 3 and 4 are named, 2 is where the last move came from, 6 is the newest
    assert done.kept == (2, 3, 4, 6)
    assert done.files == 4  # the adapter and the list of each; they share bundle.json with all others
    for number in done.kept:
        own.artifacts.check(own.show(number).artifact_sha256 or "")
    assert [one.version for one in own.list() if one.collected] == [5, 1]
    assert own.show(5).arm == "lora"
    with pytest.raises(InputError, match=r"the files of version 5 were collected; .*: trimtab registry register lora"):
        own.promote(5, why="too late")
    assert own.rollback(why="2 is whole").version == 2
    with pytest.raises(InputError, match="the files of version 1 were collected"):
        own.rollback(why="1 is not")
    assert own.current().number == 2
    assert own.gc(1).versions == ()
    with pytest.raises(InputError, match="keeps nothing"):
        own.gc(0)


def test_gc_of_one_task_leaves_the_files_of_another(own: Registry, add: Add, task: Task, tmp_path: Path) -> None:
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    (other_folder / "rows.jsonl").write_text('{"input": "a", "output": "b"}\n')
    (other_folder / "trimtab.toml").write_text(task.file.read_text().replace('"small"', '"other"'))
    home = tmp_path / ".trimtab"
    with registry(load_task(other_folder), home / "registry.db", artifacts=home / "artifacts") as other:
        for text in "ab":
            add(own, text)
        kept = add(other, "a")
        with pytest.raises(MissingError, match="no version 1 of other"):
            other.show(1)
        assert [one.version for one in other.list()] == [kept.number] == [3]
        assert own.gc(1).versions == (1,)
        other.artifacts.check(kept.artifact_sha256 or "")


def test_a_file_that_a_gc_takes_while_it_is_registered_again_is_put_again(
    own: Registry, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in "ab":
        add(own, text)
    put = Artifacts.put

    def collected_then(self: Artifacts, folder: Path, scratch: Path) -> str:
        artifact = put(self, folder, scratch)
        monkeypatch.setattr(Artifacts, "put", put)
        own.gc(1)  # between the files and the row: no version names them any more
        return artifact

    monkeypatch.setattr(Artifacts, "put", collected_then)
    again = add(own, "a")
    own.artifacts.check(again.artifact_sha256 or "")
    own.promote(again.number or 0, why="whole")


def test_two_writers_at_once_get_numbers_of_their_own_and_every_move_follows_another(
    opened: Registry, add: Add, task: Task, place: str, tmp_path: Path
) -> None:
    add(opened)

    def write(name: str) -> list[int]:
        folder = tmp_path / name
        folder.mkdir()
        with registry(task, place, artifacts=tmp_path / ".trimtab" / "artifacts") as mine:
            numbers = []
            for turn in range(5):
                (folder / "weights").write_text(f"{name}{turn}")
                numbers.append(mine.add(DRAFT, folder).number or 0)
                mine.promote(numbers[-1], why=name)
            return numbers

    with ThreadPoolExecutor(4) as threads:
        given = [number for numbers in threads.map(write, "abcd") for number in numbers]
    assert sorted(given) == list(dict.fromkeys(sorted(given)))
    assert {one.version for one in opened.list()} == {1, *given}
    moves = opened.history()[::-1]
    assert [one.previous for one in moves] == [None, *(one.version for one in moves[:-1])]
    assert opened.current().number == moves[-1].version


def test_order_does_not_hang_on_the_clock(opened: Registry, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = datetime(2030, 1, 1, tzinfo=UTC)
    monkeypatch.setattr(module, "_now", lambda: clock)
    for text in "abc":
        number = add(opened, text).number or 0
        opened.promote(number, why="next")
        clock -= timedelta(days=400)  # set back, again and again
    assert [one.version for one in opened.history()] == [3, 2, 1]
    assert opened.current().number == 3
    assert opened.rollback(why="back").version == 2


def statement(place: str, words: str) -> None:
    """Run one in a registry, past it."""
    if place.startswith("postgresql"):
        execute(place, words)
        return
    file = sqlite3.connect(place)
    file.execute(words)
    file.commit()
    file.close()


@pytest.mark.parametrize(
    "planted",
    [
        "CREATE TRIGGER steal AFTER INSERT ON trimtab_moves BEGIN DELETE FROM trimtab_moves; END",
        "CREATE VIEW steal AS SELECT 1",
    ],
)
def test_what_runs_by_itself_is_refused(own: Registry, task: Task, planted: str) -> None:
    own.close()
    statement(own.name, planted)
    with pytest.raises(InputError, match=r"holds the \w+ steal, which Trimtab did not make"):
        registry(task)


def test_a_damaged_artifact_is_one_clear_line_and_no_alias_comes_to_it(own: Registry, add: Add, tmp_path: Path) -> None:
    add(own, "good")
    bad = add(own, "bad")
    own.promote(1, why="good")
    files = own.artifacts.files(bad.artifact_sha256 or "")
    file = tmp_path / ".trimtab" / "artifacts" / files["run/adapter"]
    whole = file.read_bytes()
    for content, message in ((b"worse", "is damaged: its content has another hash than its name"), (None, "is gone")):
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        with pytest.raises((InputError, MissingError), match=rf"{file}: .*{message}.*; register the arm again") as told:
            own.promote(2, why="bad")
        assert "\n" not in str(told.value)
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a symbolic link"):
        own.promote(2, why="bad")
    assert own.current().number == 1
    assert add(own, "bad").artifact_sha256 == bad.artifact_sha256  # registered again, it is mended
    assert file.read_bytes() == whole
    own.promote(2, why="mended")
    listed = tmp_path / ".trimtab" / "artifacts" / (bad.artifact_sha256 or "")
    listed.write_text(listed.read_text().replace("run/adapter", "../adapter"))
    with pytest.raises(InputError, match="is damaged"):
        own.artifacts.check(bad.artifact_sha256 or "")


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '"x"', "[" * 100_000, '{"number": 1}'])
def test_a_record_or_a_list_of_files_that_is_no_json_of_ours_is_one_line(
    own: Registry, add: Add, tmp_path: Path, text: str
) -> None:
    version = add(own, "good")
    artifact = hashlib.sha256(text.encode()).hexdigest()  # a registry that came with a folder may name any
    (tmp_path / ".trimtab" / "artifacts" / artifact).write_text(text)
    with pytest.raises(InputError, match=rf"{artifact}: is damaged: no list of files \(.*; register the arm again"):
        own.artifacts.files(artifact)
    with own._database.begin() as connection:
        connection.exec_driver_sql("UPDATE trimtab_versions SET record = ?", (text,))
    with pytest.raises(InputError, match=r"the record of version 1 is damaged \(.*; restore it from a copy") as told:
        own.list()
    assert "\n" not in str(told.value)
    assert version.number == 1


def test_a_move_back_from_nothing_names_no_version(own: Registry, add: Add) -> None:
    add(own, "good")
    own.promote(1, why="good")
    with own._database.begin() as connection:
        connection.exec_driver_sql("UPDATE trimtab_moves SET record = replace(record, 'promote', 'rollback')")
    with pytest.raises(MissingError, match="names no version, so that there is nothing to go back to"):
        own.rollback(why="worse")


def test_files_come_back_as_they_were_and_a_copy_that_was_changed_is_made_anew(
    own: Registry, add: Add, tmp_path: Path
) -> None:
    add(own, "one")
    own.promote(1, why="first")
    follow = own.follow()
    release = follow(())
    assert release is not None
    assert (release.alias, release.version) == ("production", 1)
    assert {path.name: path.read_text() for path in release.folder.rglob("*") if path.is_file()} == {
        "adapter": "one",
        "bundle.json": "{}",
    }
    assert follow((1,)) is None
    (release.folder / "run" / "adapter").write_text("another")
    (release.folder / "more").write_text("x")
    again = follow(())
    assert again == release
    assert (again.folder / "run" / "adapter").read_text() == "one"
    assert not (again.folder / "more").exists()
    assert not list(release.folder.parent.glob(".*"))


@pytest.mark.parametrize("name", ["../outside", "/outside", "a\\b", "a\0b"])
def test_a_list_that_leads_out_of_its_folder_is_refused(own: Registry, name: str, tmp_path: Path) -> None:
    from hashlib import sha256

    text = json.dumps({"form": FORM, "files": {name: "0" * 64}}).encode()
    listed = tmp_path / ".trimtab" / "artifacts" / sha256(text).hexdigest()
    listed.parent.mkdir()
    listed.write_bytes(text)
    with pytest.raises(InputError, match="which lies in no folder"):
        own.artifacts.get(listed.name, tmp_path / "copy")


def test_a_store_that_fsspec_opens(task: Task, add: Add, tmp_path: Path) -> None:
    address = f"memory://{tmp_path.name}/artifacts"
    with registry(task, artifacts=address) as one:
        wanted = collect_one_of_three(one, add)
        import fsspec

        files = fsspec.filesystem("memory")
        there = files.ls(f"/{tmp_path.name}/artifacts", detail=False)
        assert {path.rpartition("/")[2] for path in there} == wanted
        damaged = one.artifacts.files(one.show(3).artifact_sha256 or "")["run/adapter"]
        files.pipe_file(f"/{tmp_path.name}/artifacts/{damaged}", b"x")
        with pytest.raises(InputError, match=rf"{address}/{damaged}: is damaged"):
            one.promote(3, why="damaged")
        add(one, "c")
        one.promote(3, why="mended")


@pytest.mark.parametrize(
    ("address", "kind", "message"),
    [("nothing://x", InputError, "--artifacts: no store of artifacts"), ("s3://x", trimtab.TrimtabError, "s3fs|s3://")],
)
def test_a_store_that_cannot_be_opened_is_told(
    task: Task, add: Add, address: str, kind: type[Exception], message: str
) -> None:
    with registry(task, artifacts=address) as one, pytest.raises(kind, match=message) as told:
        add(one)
    assert "\n" not in str(told.value)


def test_a_registry_that_is_only_read_is_not_made(task: Task, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"registry\.db: no versions are kept there; .* trimtab registry register$"):
        registry(task, make=False)
    assert not (tmp_path / ".trimtab").exists()


def test_postgresql_needs_a_place_for_files_only_where_these_are_used(server: str, task: Task, add: Add) -> None:
    execute(f"{server}/postgres", "CREATE DATABASE alone", autocommit=True)
    try:
        with registry(task, f"{server}/alone") as one:
            assert one.list() == ()
            with pytest.raises(InputError, match="--artifacts: a registry in PostgreSQL, and no place"):
                add(one)
    finally:
        execute(f"{server}/postgres", "DROP DATABASE alone WITH (FORCE)", autocommit=True)
    with pytest.raises(RemoteError, match="is the server running") as told:
        registry(task, f"{server.rpartition(':')[0]}:9/x")
    assert "secret" not in str(told.value)


def test_a_full_disk_is_told_and_nothing_is_half_there(small_disk: Path, task: Task, add: Add) -> None:
    with registry(task, small_disk / "registry.db") as one:
        add(one, "first")
        before = {path.name for path in (small_disk / "artifacts").iterdir()}
        fill(small_disk)
        with pytest.raises(OSError, match="No space left") as told:
            add(one, "x" * 10_000)
        assert "no space left on the disk; free disk space" in os_error_message(told.value)
        assert {path.name for path in (small_disk / "artifacts").iterdir()} == before
        (small_disk / "filler").unlink()
        assert [found.version for found in one.list()] == [1]
        assert add(one, "x" * 10_000).number == 2


BOUNDED = """
import resource, signal, sys
from pathlib import Path
from trimtab.base.errors import TrimtabError, os_error_message
from trimtab.base.task import load_task
from trimtab.upkeep.registry import registry
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with registry(load_task(Path(sys.argv[1]))) as one:
    done = 0
    try:
        for number in range(10_000):
            one.promote(1 + number % 2, why="x" * 1500, by="jo")
            done += 1
            size = (Path(one.name + "-wal").stat().st_size // 4096 + 2) * 4096
            if number == 3:
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    except OSError as error:
        print(done, os_error_message(error))
"""


def test_a_database_that_cannot_grow_loses_nothing_that_was_told(own: Registry, add: Add, tmp_path: Path) -> None:
    add(own, "a")
    add(own, "b")
    own.close()
    done = run([sys.executable, "-c", BOUNDED, str(tmp_path)])
    assert done.stderr == ""
    found = re.fullmatch(r"(\d+) \S+registry\.db: [^\n]+; [^\n]+\n", done.stdout)
    assert found, done.stdout
    with registry(own.task) as again:
        moves = again.history()
        assert len(moves) == int(found[1]) >= 4
        assert again.current().number == moves[0].version


def test_lineage_leads_from_data_to_aliases_and_is_a_page(own: Registry, add: Add, tmp_path: Path) -> None:
    add(own, "a", arm="<b>rag</b>")
    add(own, "b")
    own.promote(1, why="the <script>first</script>")
    own.promote(2, why="better")
    page = tmp_path / "lineage.html"
    found = own.lineage(page)
    assert [one.number for one in found.versions] == [1, 2]
    assert found.aliases == {"production": 2}
    assert found.headline == "2 versions of small; production is 2"
    text = page.read_text()
    assert "&lt;script&gt;first" in text
    assert "<script>first" not in text
    assert "<b>rag" not in text
    assert "production (now)" in text
    assert text.count("<table") == 3


def test_a_task_file_may_say_where_versions_are_kept(task: Task, add: Add, tmp_path: Path) -> None:
    text = task.file.read_text()
    task.file.write_text(text + '[upkeep]\nregistry = "sqlite:///kept/versions.db"\nartifacts = "files"\n')
    with registry(tmp_path) as own:
        add(own)
    assert (tmp_path / "kept" / "versions.db").is_file()
    assert (tmp_path / "files").is_dir()
    assert not (tmp_path / ".trimtab" / "registry.db").exists()
    with registry(tmp_path, tmp_path / "other.db") as own:  # who says otherwise at the keyboard is right
        assert own.list() == ()


@pytest.mark.parametrize("place", ["postgresql://jo:secret@db.example/versions", "../elsewhere.db", "/elsewhere.db"])
def test_a_place_outside_its_folder_needs_consent(
    task: Task, place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    task.file.write_text(task.file.read_text() + f'[upkeep]\nregistry = "{place}"\n')
    with pytest.raises(ConsentError, match=r"asks to keep versions at .* add: --registry") as refused:
        registry(task.folder)
    assert "secret" not in str(refused.value)


def test_a_place_that_the_users_own_configuration_names_needs_no_more(
    task: Task, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    configured = tmp_path / "config" / "trimtab" / "config.toml"
    configured.parent.mkdir(parents=True)
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    configured.write_text(f'allow = ["{elsewhere}", "postgresql://jo@127.0.0.1:9/versions"]\n')
    text = task.file.read_text()
    task.file.write_text(text + f'[upkeep]\nregistry = "{elsewhere}/versions.db"\nartifacts = "{elsewhere}/files"\n')
    with registry(task.folder) as own:
        assert own.list() == ()
    task.file.write_text(text + '[upkeep]\nregistry = "postgresql://jo:secret@127.0.0.1:9/versions"\n')
    with pytest.raises(RemoteError):  # allowed, and nobody is there
        registry(task.folder)
    task.file.write_text(text + '[upkeep]\nregistry = "postgresql://jo@db.example/other"\nartifacts = "s3://a/b"\n')
    with pytest.raises(ConsentError, match=r"--registry \S+other --artifacts s3://a/b"):
        registry(task.folder)
