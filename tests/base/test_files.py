"""Written files survive a crash and a full disk; an error of the system is one line that names the file."""

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.base.errors import BusyError, InputError, TrimtabError, is_write_failure, os_error_message
from trimtab.base.files import (
    TIME,
    append_line,
    locked,
    matching,
    new_folder,
    read_json,
    read_json_lines,
    refuse_links,
    remove_partial,
    replacing,
    write_atomic,
)


@given(whole=st.lists(st.text(), max_size=3), long=st.integers(0, 10_000), kept=st.floats(0, 0.99))
def test_a_cut_line_is_gone_when_the_next_is_appended(tmp_path_factory, whole, long, kept):
    path = tmp_path_factory.mktemp("lines") / "events.jsonl"
    for value in whole:
        append_line(path, value)
    cut = json.dumps("x" * long)
    with open(path, "a") as file:
        file.write(cut[: int(len(cut) * kept)])
    assert list(read_json_lines(path)) == whole
    append_line(path, "next")
    assert list(read_json_lines(path)) == [*whole, "next"]


@pytest.mark.parametrize("line", ["{", "x", "\udcff"])
def test_a_damaged_line_is_named(tmp_path: Path, line: str):
    path = tmp_path / "events.jsonl"
    path.write_text(f"1\n{line}\n2\n", errors="surrogateescape")
    with pytest.raises(InputError, match=r"events.jsonl:2: is damaged; take this line out"):
        list(read_json_lines(path))


def test_folders_made_in_the_same_second_differ_and_their_names_begin_with_the_time(tmp_path: Path):
    names = [new_folder(tmp_path / "studies", "abc").name for _ in range(3)]
    assert sorted(set(names)) == names
    for name in names:
        made = datetime.strptime(name.removesuffix("-abc"), TIME).replace(tzinfo=UTC)
        assert abs((datetime.now(UTC) - made).total_seconds()) < 60


@pytest.mark.parametrize("write", [write_atomic, append_line])
def test_a_folder_in_place_of_a_file_is_named_and_nothing_is_left_beside_it(tmp_path: Path, write):
    (tmp_path / "latest").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write(tmp_path / "latest", "x")
    assert os_error_message(caught.value) == f"{tmp_path / 'latest'}: a folder is where a file should be; move it away"
    assert [path.name for path in tmp_path.iterdir()] == ["latest"]


def test_a_file_in_place_of_a_folder_is_told(tmp_path: Path):
    (tmp_path / "studies").write_text("")
    for use in (lambda: new_folder(tmp_path / "studies", "x"), lambda: write_atomic(tmp_path / "studies" / "y", "x")):
        with pytest.raises(OSError, match="studies") as caught:
            use()
        assert "studies: a file is where a folder should be; move it away" in os_error_message(caught.value)


def test_what_would_stop_the_next_write_too_is_known_through_what_it_was_wrapped_in():
    full = OSError(errno.ENOSPC, "No space left on device")
    assert os_error_message(full).startswith("no space left on the disk; free disk space")
    rust = RuntimeError("I/O error: No space left on device (os error 28)")
    wrapped = TrimtabError("could not be written")
    wrapped.__cause__ = full
    assert all(map(is_write_failure, (full, rust, wrapped, OSError(errno.EROFS, "Read-only"))))
    assert not any(map(is_write_failure, (OSError(errno.ENOENT, "No such file"), ValueError("28"), TrimtabError("x"))))


HOLD = (
    "import sys, time; from trimtab.base.files import locked\nwith locked(__import__('pathlib').Path(sys.argv[1])):\n"
    "    print('held', flush=True); time.sleep(60)"
)


def test_one_writer_who_is_named_and_whose_lock_is_free_once_it_is_dead(tmp_path: Path):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        for _ in range(2):  # who was refused has taken nothing away
            with (
                pytest.raises(BusyError, match=rf"by process {other.pid} on {socket.gethostname()}; wait"),
                locked(tmp_path),
            ):
                pass
        other.kill()
    with locked(tmp_path), pytest.raises(BusyError, match=f"process {os.getpid()} on "), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("name", [".lock", ".holder"])
def test_nothing_is_written_through_a_link_in_the_place_of_the_lock(tmp_path: Path, name: str):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).symlink_to(victim)
    with contextlib.suppress(OSError), locked(tmp_path / "folder"):
        pass
    assert victim.read_text() == "mine"


def test_a_line_is_not_appended_through_a_link(tmp_path: Path):
    victim, ledger = tmp_path / "victim", tmp_path / "openings.jsonl"
    victim.write_text("mine")
    ledger.symlink_to(victim)
    with pytest.raises(OSError) as caught:
        append_line(ledger, "x")
    assert os_error_message(caught.value) == f"{ledger}: is a symbolic link; delete it"
    assert victim.read_text() == "mine"


def test_a_file_is_written_through_no_link_that_stands_where_it_is_made(tmp_path: Path):
    victim, file = tmp_path / "victim", tmp_path / "latest"
    victim.write_text("mine")
    (tmp_path / f".latest.{os.getpid()}.part").symlink_to(victim)
    file.symlink_to(victim)
    write_atomic(file, "new")
    assert (victim.read_text(), file.read_text(), file.is_symlink()) == ("mine", "new", False)


def test_a_folder_of_ours_holds_no_link_anywhere(tmp_path: Path):
    own = tmp_path / ".trimtab"
    refuse_links(own)
    (own / "studies" / "x").mkdir(parents=True)
    refuse_links(own)
    (own / "studies" / "x" / "latest").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"studies/x/latest: is a symbolic link, and Trimtab made none; delete it"):
        refuse_links(own)
    (tmp_path / "other").symlink_to(tmp_path)
    with pytest.raises(InputError, match="other: is a symbolic link"):
        refuse_links(tmp_path / "other")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputError, match="fifo: is no regular file"):
        read_json(tmp_path / "fifo")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "gone")
    assert list(read_json_lines(tmp_path / "fifo")) == []


def test_what_a_killed_writer_left_beside_its_own_files_goes_and_no_other(tmp_path):
    for name in (".a.json.1.part", "..holder.7.part", ".mine.part", "a.json"):
        (tmp_path / name).write_text("x")
    remove_partial(tmp_path, "a.json.*")
    assert not (tmp_path / ".a.json.1.part").exists()
    below = tmp_path / "arms" / "one"
    (below / ".arm.json.8.part").mkdir(parents=True)
    (below / ".arm.json.8.part" / "arm.json").write_text("ha")
    with locked(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {".mine.part", "a.json", ".lock", ".holder", "arms"}
        assert list(below.iterdir()) == []


def test_what_a_writer_made_beside_its_file_goes_too_and_its_mode_is_that_of_any_file(tmp_path):
    path, plain = tmp_path / "a.safetensors", tmp_path / "plain"
    plain.write_text("x")
    with contextlib.suppress(KeyboardInterrupt), replacing(path) as beside:
        (beside.parent / ".tmpKilled").write_bytes(b"half")
        raise KeyboardInterrupt
    (tmp_path / ".a.safetensors.7.part").mkdir()  # of a process that had no time to do so
    (tmp_path / ".a.safetensors.7.part" / ".tmpKilled").write_bytes(b"half")
    remove_partial(tmp_path, f"{path.name}.*")
    assert list(tmp_path.iterdir()) == [plain]
    with replacing(path) as beside:
        beside.touch(mode=0o600)
    assert path.stat().st_mode == plain.stat().st_mode


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.bin"

    def replace(content, error=None):
        with replacing(path) as beside:
            beside.write_bytes(content)
            if error:
                raise error

    replace(b"one")
    for error in (OSError(28, "No space left on device"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised:
            replace(b"tw", error)
        assert getattr(raised.value, "filename", str(path)) == str(path)
        assert [(one.name, one.read_bytes()) for one in path.parent.iterdir()] == [("a.bin", b"one")]
    replace(b"three")
    assert path.read_bytes() == b"three"


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.md", {"a.md"}),
        ("**/*.md", {"a.md", "one/b.md", "one/two/c.md"}),
        ("**", {"a.md", "one", "one/b.md", "one/two", "one/two/c.md"}),
        ("one/**", {"one/b.md", "one/two", "one/two/c.md"}),
        ("one/**/", {"one/b.md", "one/two", "one/two/c.md"}),
        ("none/*", set()),
    ],
)
def test_a_pattern_names_the_same_in_every_python(tmp_path: Path, pattern: str, found: set[str]):
    (tmp_path / "one" / "two").mkdir(parents=True)
    for name in ("a.md", "one/b.md", "one/two/c.md"):
        (tmp_path / name).touch()
    assert {path.relative_to(tmp_path).as_posix() for path in matching(tmp_path, pattern)} == found


@pytest.mark.parametrize("pattern", ["**x", "a**", "one/***.md"])
def test_two_stars_beside_letters_are_no_pattern(tmp_path: Path, pattern: str):
    with pytest.raises(ValueError, match=r"has \*\* beside"):
        matching(tmp_path, pattern)
