"""The store: nothing that was acknowledged is lost, whoever writes at once or is killed, and nothing foreign is
touched."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filling import fill
from forked import Forked, run
from judged import judgement

import trimtab
from trimtab.base.errors import BusyError, InputError, MissingError, os_error_message
from trimtab.serving import database
from trimtab.serving.feedback import FeedbackStore

WRITER = """
import itertools, sys
from judged import judgement
from trimtab.serving.feedback import FeedbackStore
store = FeedbackStore(sys.argv[1])
for number in itertools.count() if sys.argv[3] == "-" else range(int(sys.argv[3])):
    store.add(judgement(id=f"{sys.argv[2]}-{number}"))
    print(f"{sys.argv[2]}-{number}", flush=True)
"""


def writer(place: Path | str, name: str, count: str) -> Forked:
    """A process that adds judgements and says the id of each when it is kept."""
    paths = [str(Path(__file__).parents[1] / "helpers"), str(Path(trimtab.__file__).parents[1])]
    command = [sys.executable, "-c", WRITER, str(place), name, count]
    return Forked(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)})


def test_judgements_come_back_whole_and_by_time(tmp_path: Path) -> None:
    later, first, between = (judgement(at=at, session="ünï\n🙂") for at in (9, 1, 5))
    with FeedbackStore(tmp_path / "new" / "feedback.db") as store:
        for one in (later, first, between):
            store.add(one)
        assert store.all() == (first, between, later)
        assert list(store) == list(store.all())
        assert store.count() == 3
    with FeedbackStore(tmp_path / "new" / "feedback.db", make=False) as again:
        assert again.all() == (first, between, later)


def test_an_id_is_kept_once(tmp_path: Path) -> None:
    with FeedbackStore(tmp_path / "feedback.db") as store:
        store.add(judgement(id="one"))
        with pytest.raises(InputError, match="one: is kept already"):
            store.add(judgement("dislike", id="one"))
        assert [one.kind for one in store] == ["like"]


def test_text_that_looks_like_sql_stays_text(tmp_path: Path) -> None:
    hostile = "'); DROP TABLE trimtab_judgements; -- %s :id ?"
    with FeedbackStore(tmp_path / "feedback.db") as store:
        store.add(judgement("like", hostile, asked=hostile, session=hostile))
        assert store.all()[0].answers[0].text == hostile


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with FeedbackStore(tmp_path / "feedback.db") as store:
            store.add(judgement())
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("feedback.db", "feedback.db-wal", "feedback.db-shm"), 0o600)


def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    process = writer(tmp_path / "feedback.db", "a", "-")
    assert process.stdout is not None
    told = [process.stdout.readline().strip() for _ in range(30)]
    process.kill()
    told += process.stdout.read().split()
    process.wait()
    process.stdout.close()
    with FeedbackStore(tmp_path / "feedback.db") as store:
        kept = [one.id for one in store]
    assert kept[: len(told)] == told
    assert len(kept) - len(told) <= 1


def test_several_processes_make_and_fill_one_store(tmp_path: Path) -> None:
    processes = [writer(tmp_path / "feedback.db", name, "25") for name in "abc"]
    told = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    with FeedbackStore(tmp_path / "feedback.db") as store:
        assert {one.id for one in store} == {id for ids in told for id in ids}
        assert store.count() == 75
    assert not list(tmp_path.glob(".*.part*"))


def test_threads_share_a_store(tmp_path: Path) -> None:
    with FeedbackStore(tmp_path / "feedback.db") as store, ThreadPoolExecutor(8) as threads:
        many = [judgement(id=f"j{number}") for number in range(200)]
        list(threads.map(store.add, many))
        assert {one.id for one in store} == {one.id for one in many}


def test_a_reader_sees_one_moment_while_others_write(tmp_path: Path) -> None:
    with FeedbackStore(tmp_path / "feedback.db") as store:
        for number in range(3):
            store.add(judgement(id=f"j{number}", at=number))
        reading = iter(store)
        first = next(reading)
        store.add(judgement(id="new", at=99))
        assert [first.id, *(one.id for one in reading)] == ["j0", "j1", "j2"]
        assert store.count() == 4


def test_who_waits_too_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    with FeedbackStore(tmp_path / "feedback.db") as store:
        other = sqlite3.connect(tmp_path / "feedback.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BusyError, match=r"feedback\.db: others have been at it"):
            store.add(judgement())
        other.execute("ROLLBACK")
        other.close()
        store.add(judgement())
        assert store.count() == 1


def test_more_readers_than_connections_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    with FeedbackStore(tmp_path / "feedback.db") as store:
        store.add(judgement(id="a"))
        store.add(judgement(id="b"))
        readers = [iter(store) for _ in range(50)]
        with pytest.raises(BusyError, match="others have been at it"):
            list(map(next, readers))
        for reader in readers:
            reader.close()  # type: ignore[attr-defined]
        assert store.count() == 2


def foreign(path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE bookmarks (place TEXT)")
    other.commit()
    other.close()


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + b"\xff" * 500, None])
def test_a_damaged_or_foreign_file_is_told_and_left_as_it_is(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "feedback.db"
    if content is None:
        foreign(file)
    else:
        file.write_bytes(content)
    before = file.read_bytes()
    with pytest.raises(
        InputError, match=r"feedback\.db: is .*no store of judgements.*; name another place with --store"
    ) as told:
        FeedbackStore(file)
    assert "\n" not in str(told.value)
    assert file.read_bytes() == before


def change(file: Path, words: str) -> None:
    other = sqlite3.connect(file)
    other.execute(words)
    other.commit()
    other.close()


PLANTED = {
    "trigger": "CREATE TRIGGER steal AFTER INSERT ON trimtab_judgements BEGIN DELETE FROM trimtab_judgements; END",
    "view": "CREATE VIEW steal AS SELECT load_extension('/tmp/x')",
    "table": "CREATE TABLE steal (id TEXT)",
    "index": "CREATE INDEX steal ON trimtab_judgements (hex(record))",
    "virtual": "CREATE VIRTUAL TABLE steal USING fts5(x)",
    "column": "ALTER TABLE trimtab_judgements ADD COLUMN steal TEXT DEFAULT 'x'",
    "control": 'CREATE TABLE "steal\x1b[31m\n" (id TEXT)',
}


@pytest.mark.parametrize("statement", PLANTED.values(), ids=PLANTED)
def test_a_store_that_holds_what_trimtab_did_not_make_is_refused_and_left_as_it_is(
    tmp_path: Path, statement: str
) -> None:
    file = tmp_path / "feedback.db"
    with FeedbackStore(file) as store:
        store.add(judgement(id="kept"))
    change(file, statement)
    before = file.read_bytes()
    with pytest.raises(
        InputError, match=r"feedback\.db: holds the (\w+) (steal|trimtab_judgements).*; name another place"
    ) as told:
        FeedbackStore(file)
    assert str(told.value).isprintable()
    assert file.read_bytes() == before


@pytest.mark.parametrize("kind", ["view", "check"])
def test_a_planted_table_of_our_name_is_never_read(tmp_path: Path, kind: str) -> None:
    """A view would run whatever it holds with the first look at it."""
    file = tmp_path / "feedback.db"
    FeedbackStore(file).close()
    change(file, "DROP TABLE trimtab_form")
    endless = (
        "WITH RECURSIVE n(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM n) SELECT max(number) AS number FROM n"
    )
    change(
        file,
        f"CREATE VIEW trimtab_form AS {endless}"
        if kind == "view"
        else "CREATE TABLE trimtab_form (number INTEGER NOT NULL CHECK (number < 9))",
    )
    with pytest.raises(InputError, match=r"no store of judgements|which Trimtab did not make"):
        FeedbackStore(file)


def test_a_store_that_was_analysed_is_still_ours(tmp_path: Path) -> None:
    file = tmp_path / "feedback.db"
    with FeedbackStore(file) as store:
        store.add(judgement(id="kept"))
    change(file, "ANALYZE")
    with FeedbackStore(file) as store:
        assert [one.id for one in store] == ["kept"]


BOUNDED = """
import resource, signal, sys
from trimtab.base.errors import os_error_message
from trimtab.serving.feedback import FeedbackStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    FeedbackStore(sys.argv[1]).close()
except OSError as error:
    print(os_error_message(error))
"""


@pytest.mark.parametrize("size", [0, 100, 5000, 20000])
def test_a_disk_that_takes_no_new_store_is_told_in_one_line_and_nothing_stays(tmp_path: Path, size: int) -> None:
    file = tmp_path / "new" / "feedback.db"
    done = run([sys.executable, "-c", BOUNDED, str(file), str(size)])
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(rf"{re.escape(str(file))}: [^\n;]+; [^\n]+\n", done.stdout)
    assert not list((tmp_path / "new").iterdir())


def test_a_full_disk_takes_no_new_store_and_says_so(small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(OSError, match="full") as told:
        FeedbackStore(small_disk / "new" / "feedback.db")
    assert "no space left on the disk; free disk space" in os_error_message(told.value)
    assert not [path for path in small_disk.rglob("*") if path.suffix in (".db", ".part")]


def test_a_record_that_was_damaged_is_named(tmp_path: Path) -> None:
    file = tmp_path / "feedback.db"
    with FeedbackStore(file) as store:
        store.add(judgement(id="broken"))
    change(file, "UPDATE trimtab_judgements SET record = '{'")
    with FeedbackStore(file) as store, pytest.raises(InputError, match="judgement broken is damaged"):
        store.all()


@pytest.mark.parametrize("name", ["feedback.db", "feedback.db-wal", "feedback.db-journal"])
def test_nothing_is_written_through_a_link(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"{name}: is a symbolic link"):
        FeedbackStore(tmp_path / "feedback.db")
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "feedback.db")
    with pytest.raises(InputError, match="is no file"):
        FeedbackStore(tmp_path / "feedback.db")


def test_a_place_that_is_only_read_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no judgements are kept there"):
        FeedbackStore(tmp_path / "feedback.db", make=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("where", ["mysql://jo:secret@host/x", "postgresql://jo:secret@host", "sqlite://", "http://["])
def test_other_places_are_refused_and_no_password_is_told(where: str) -> None:
    with pytest.raises(InputError, match=r"--store: no place for judgements.*name a file, or postgresql") as told:
        FeedbackStore(where)
    assert "secret" not in str(told.value)
