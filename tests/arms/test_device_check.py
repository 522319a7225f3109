"""A device is checked once for its versions, in a process that may crash, and what its result switches off is not
used."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from study_tasks import write_task

from trimtab.arms.device_check import check_device, ensure_checked
from trimtab.arms.session import Session
from trimtab.arms.workspace import open_workspace
from trimtab.base.errors import InputError
from trimtab.base.files import cache_root
from trimtab.base.task import load_task
from trimtab.model import device_record
from trimtab.model.device_record import CheckRow, DeviceCheck, check_summary, keep, kept_check, usable_device
from trimtab.model.devices import choose_precision
from trimtab.model.kernels import build
from trimtab.model.load import load_base

# Answers as the real script does, with rows of its own, and counts its starts; or ends as one that crashes does.
SCRIPT = """
import json, os, signal, sys
with open(os.path.join(os.path.dirname(__file__), "starts"), "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
{crash}
print(json.dumps({answer}), flush=True)
"""


def row(*, precision: str = "fp32", kernels: bool = False, difference: float | None = 1e-6) -> CheckRow:
    equal = difference is not None and difference <= 0.1
    return CheckRow(
        what="logits",
        precision=precision,
        kernels=kernels,
        difference=difference,
        tolerance=0.1,
        equal=equal,
        seconds=0.1,
    )


def script(folder: Path, *rows: CheckRow, crash: str = "", answer: dict[str, object] | None = None) -> Path:
    plain = [{name: getattr(one, name) for name in CheckRow.__dataclass_fields__} for one in rows]
    file = folder / "script.py"
    file.write_text(SCRIPT.format(crash=crash, answer=repr(answer or {"rows": plain})))
    return file


def starts(folder: Path) -> list[str]:
    file = folder / "starts"
    return file.read_text().splitlines() if file.exists() else []


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that was never checked, and a process that begins. Kernels that are compiled already stay so."""
    kernels = cache_root() / "kernels"
    if build.library():
        shutil.copytree(kernels, tmp_path / "cache" / "kernels")
    monkeypatch.setenv("TRIMTAB_DEVICE_CHECK", "1")
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(device_record, "_known", {})
    monkeypatch.setattr(build, "_allowed", True)


def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_record, "_known", {})


def test_a_session_compares_this_processor_before_it_loads_a_model(
    tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session(open_workspace(load_task(write_task(tmp_path, tiny_model_folder, ["prompt"]))))
    _ = session.base
    check = kept_check("cpu")
    assert check is not None
    assert all(one.equal for one in check.rows), check.rows
    assert (check.off, any(one.kernels for one in check.rows)) == ((), bool(build.library()))
    assert capsys.readouterr().err.count("\n") == 1


def test_a_machine_is_checked_once_for_its_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, lines = script(tmp_path, row()), []
    for _ in range(2):
        new_process(monkeypatch)
        ensure_checked(lines.append, file)
    assert len(starts(tmp_path)) == len(lines) == 1
    monkeypatch.setenv("CC", "another-compiler")  # other kernels
    new_process(monkeypatch)
    ensure_checked(lines.append, file)
    assert len(starts(tmp_path)) == 2
    monkeypatch.setattr(device_record, "version", lambda package: "99")  # other libraries
    new_process(monkeypatch)
    ensure_checked(lines.append, file)
    assert len(starts(tmp_path)) == 3


@pytest.mark.parametrize("content", ["", "{", "[]", '{"form": 1}', "{}"])
def test_a_damaged_result_or_one_of_another_form_is_made_again(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = script(tmp_path, row())
    ensure_checked(lambda _: None, file)
    (kept,) = (tmp_path / "cache" / "devices").iterdir()
    kept.write_text(content)
    new_process(monkeypatch)
    ensure_checked(lambda _: None, file)
    assert len(starts(tmp_path)) == 2
    assert json.loads(kept.read_text())["rows"]


def test_a_result_for_another_machine_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = check_device("cpu", lambda _: None, script(tmp_path, row()))
    (kept,) = (tmp_path / "cache" / "devices").iterdir()
    kept.write_text(kept.read_text().replace(check.key, "0" * 16))
    new_process(monkeypatch)
    assert kept_check("cpu") is None


def test_nothing_is_checked_where_it_is_not_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_DEVICE_CHECK", "0")
    ensure_checked(lambda _: None, script(tmp_path, row(difference=1.0)))
    assert starts(tmp_path) == []
    assert check_summary() is None


def test_a_cache_that_cannot_be_written_costs_a_check_in_each_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache" / "devices").parent.mkdir(exist_ok=True)
    (tmp_path / "cache" / "devices").write_text("no folder")
    file = script(tmp_path, row())
    for _ in range(2):
        new_process(monkeypatch)
        ensure_checked(lambda _: None, file)
        ensure_checked(lambda _: None, file)
    assert len(starts(tmp_path)) == 2


def test_kernels_that_crash_are_switched_off(tmp_path: Path) -> None:
    lines: list[str] = []
    crash = 'if sys.argv[2] == "kernels": os.kill(os.getpid(), signal.SIGILL)'
    check = check_device("cpu", lines.append, script(tmp_path, row(), crash=crash))
    assert check.off == ("kernels",)
    assert starts(tmp_path) == ["cpu kernels", "cpu plain"]
    assert "the C kernels are switched off" in lines[-1]


@pytest.mark.parametrize(
    ("crash", "answer"),
    [("os.kill(os.getpid(), signal.SIGSEGV)", None), ("", {"error": "out of memory"})],
)
def test_a_check_without_a_result_is_refused_and_not_kept(
    crash: str, answer: dict[str, object] | None, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="plain float32"):
        ensure_checked(lambda _: None, script(tmp_path, crash=crash, answer=answer))
    assert kept_check("cpu") is None


def switched_off(*off: str, device: str = "cpu") -> DeviceCheck:
    check = device_record.new_check("cpu", [row(difference=0.5)], 1.0, "2026-12-02")
    check = replace(check, device=device, off=off, key=check.key if device == "cpu" else "0" * 16)
    keep(check)
    return check


def test_bf16_that_is_switched_off_is_not_chosen_and_refused_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trimtab.model.devices.faster_in_bf16", lambda device: True)
    assert choose_precision("auto") == "bf16"
    switched_off("bf16")
    assert choose_precision("auto") == choose_precision("fp32") == "fp32"
    with pytest.raises(InputError, match="bf16 on this cpu differs from float32") as raised:
        choose_precision("bf16")
    assert "\n" not in str(raised.value)


def test_kernels_that_are_switched_off_take_no_part_in_a_loaded_model(
    tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "library", lambda: {"gated": print})
    numbers = torch.zeros(2, dtype=torch.bfloat16)
    for off in (True, False):
        switched_off(*["kernels"] * off)
        load_base(tiny_model_folder, "fp32")
        assert build.supports("gated", numbers) is not off


def test_a_processor_that_is_switched_off_loads_no_model(tiny_model_folder: Path) -> None:
    switched_off("device")
    with pytest.raises(InputError, match="cpu computes other numbers than float32") as raised:
        load_base(tiny_model_folder)
    assert "trimtab doctor --device" in str(raised.value)


def test_a_gpu_that_is_switched_off_leaves_the_processor_which_is_checked_then(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    switched_off("device", device="cuda")
    ensure_checked(lambda _: None, script(tmp_path, row()))
    assert starts(tmp_path) == ["cpu kernels"]
    assert usable_device() == "cpu"
    assert load_base(tiny_model_folder, "fp32").device.type == "cpu"
    summary = check_summary()
    assert summary is not None
    assert (summary["device"], summary["off"]) == ("cpu", [])


@pytest.mark.parametrize(
    ("off", "rows", "words"),
    [
        (("kernels",), [row(), row(precision="bf16", kernels=True, difference=0.5)], "logits in bf16 by kernels"),
        (("bf16",), [row(precision="bf16", difference=None)], "bf16 is switched off (logits in bf16 fail)"),
        (("device",), [row(difference=0.5), row(difference=0.7)], "so do 1 more"),
        ((), [row()], "nothing is switched off"),
    ],
)
def test_the_outcome_is_one_line_with_the_first_part_that_differs(
    off: tuple[str, ...], rows: list[CheckRow], words: str
) -> None:
    check = device_record.new_check("cpu", rows, 1.0, "2026-12-02")
    assert check.off == off
    assert words in check.headline
    assert "\n" not in check.headline
    assert os.linesep not in check.headline
