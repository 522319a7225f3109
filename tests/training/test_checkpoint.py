"""Checkpoints: the former one stays valid whatever happens while the next is written; see `test_kills.py` for whole
runs that are killed."""

import resource
import shutil

import pytest
import torch

from trimtab.base import files
from trimtab.base.errors import InputError
from trimtab.training.checkpoint import Checkpoint, load, load_step, save

pytestmark = pytest.mark.any_processor


def at(step):
    return Checkpoint(
        weights={"w": torch.full((4,), float(step))}, moments={"m": torch.ones(2) * step}, state={"step": step}
    )


def names(folder):
    return sorted(path.name for path in folder.glob("step-*"))


def test_what_was_saved_is_loaded(tmp_path):
    assert load(tmp_path) is None
    save(tmp_path, at(3))
    kept = load(tmp_path)
    assert kept.state == {"step": 3}
    assert torch.equal(kept.weights["w"], at(3).weights["w"])
    assert torch.equal(kept.moments["m"], at(3).moments["m"])


def test_the_last_two_and_the_best_are_kept(tmp_path):
    for step in range(1, 7):
        save(tmp_path, at(step), best=2 if step > 1 else None)
    assert names(tmp_path) == ["step-0000002", "step-0000005", "step-0000006"]
    assert load_step(tmp_path, 2).state["step"] == 2
    with pytest.raises(InputError, match="damaged"):
        load_step(tmp_path, 1)


@pytest.mark.parametrize("file", ["weights.safetensors", "moments.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, file, damage):
    save(tmp_path, at(1))
    save(tmp_path, at(2))
    victim = tmp_path / "step-0000002" / file
    if damage == "cut":
        victim.write_bytes(victim.read_bytes()[:-5])
    else:
        victim.unlink()
    assert load(tmp_path).state["step"] == 1
    shutil.rmtree(tmp_path / "step-0000001")
    with pytest.raises(InputError, match="damaged"):
        load(tmp_path)


def flip(file, place):
    """Flip one bit of a file."""
    raw = bytearray(file.read_bytes())
    raw[place] ^= 1
    file.write_bytes(bytes(raw))


@pytest.mark.parametrize("file", ["weights.safetensors", "moments.safetensors", "state.json", "hashes.json"])
@pytest.mark.parametrize("place", [-1, -3, 3])
def test_a_flipped_bit_is_seen_and_said_and_the_former_one_is_taken(tmp_path, file, place):
    for step in (1, 2, 3):
        save(tmp_path, at(step))
    flip(tmp_path / "step-0000003" / file, place)
    told = []
    assert load(tmp_path, told.append).state == {"step": 2}
    (line,) = told
    assert line.startswith(f"{tmp_path}/step-0000003: the checkpoint is damaged (")
    assert line.endswith("; training goes on from step-0000002")
    save(tmp_path, at(4))  # the damaged one goes, the one that was gone on from stays
    assert names(tmp_path) == ["step-0000002", "step-0000004"]
    for name in names(tmp_path):
        flip(tmp_path / name / file, place)
    with pytest.raises(InputError, match=r"no checkpoint is intact \(step-0000004: .*; remove this folder; the same"):
        load(tmp_path)


def test_one_whose_best_weights_are_damaged_is_not_gone_on_from(tmp_path):
    """They are put on at the end of the run: hours later it would end in an error."""
    save(tmp_path, at(1), best=1)
    save(tmp_path, at(2), best=1)
    save(tmp_path, at(3), best=3)
    save(tmp_path, at(4), best=3)
    assert load(tmp_path).state == {"step": 4}
    flip(tmp_path / "step-0000003" / "weights.safetensors", -1)
    with pytest.raises(InputError, match="no checkpoint is intact"):
        load(tmp_path)


@pytest.mark.parametrize("pointer", [b"\xff\xfe", b".", b"..", b"step-"])
def test_a_damaged_pointer_does_not_lose_the_run(tmp_path, pointer):
    for step in (1, 2):
        save(tmp_path, at(step))
    (tmp_path / "latest").write_bytes(pointer)
    assert load(tmp_path).state == {"step": 2}


def test_a_lost_pointer_does_not_lose_the_run(tmp_path):
    save(tmp_path, at(1))
    save(tmp_path, at(2))
    (tmp_path / "latest").unlink()
    assert load(tmp_path).state["step"] == 2
    (tmp_path / "latest").write_text("step-0000009")
    assert load(tmp_path).state["step"] == 2


def test_leftovers_of_a_killed_save_do_no_harm_and_go(tmp_path):
    save(tmp_path, at(1))
    (tmp_path / ".step-0000002.part").mkdir()
    (tmp_path / ".step-0000002.part" / "weights.safetensors").write_bytes(b"half")
    (tmp_path / ".latest.123.part").write_text("st")
    assert load(tmp_path).state["step"] == 1
    save(tmp_path, at(3))
    assert load(tmp_path).state["step"] == 3
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("call", range(9))
def test_a_write_that_fails_anywhere_leaves_the_former_one(tmp_path, monkeypatch, call):
    """The n-th time that something is made durable, the disk is full."""
    save(tmp_path, at(1), best=1)
    left, real = [call], files.os.fsync

    def fsync(descriptor):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(files.os, "fsync", fsync)
    said = r"checkpoint of step 2 could not be written .*No space left.*; step-0000001 before it is intact; .*--resume"
    with pytest.raises(InputError, match=said):
        save(tmp_path, at(2), best=2)
    monkeypatch.undo()
    kept = load(tmp_path)
    assert torch.equal(kept.weights["w"], at(kept.state["step"]).weights["w"])
    assert load_step(tmp_path, 1).state["step"] == 1
    assert not list(tmp_path.glob(".*.part"))
    save(tmp_path, at(2), best=2)
    assert load(tmp_path).state["step"] == 2


def test_what_was_cut_off_before_it_counted_is_neither_gone_on_from_nor_kept(tmp_path):
    """Of a former process, which died when its checkpoint was in place and the pointer was not."""
    for step in (1, 2, 4):
        save(tmp_path, at(step))
    (tmp_path / "latest").write_text("step-0000002")
    assert load(tmp_path).state["step"] == 2
    save(tmp_path, at(3))
    assert names(tmp_path) == ["step-0000002", "step-0000003"]


def test_a_disk_that_takes_no_more_bytes_leaves_the_former_one(tmp_path):
    """A real limit of the system: the file of the weights may not grow beyond 4 kB."""
    save(tmp_path, at(1))
    large = Checkpoint(weights={"w": torch.zeros(10_000)}, moments={}, state={"step": 2})
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, former[1]))
    try:
        with pytest.raises(InputError, match="could not be written"):
            save(tmp_path, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert load(tmp_path).state["step"] == 1
    assert not list(tmp_path.glob(".*.part"))
