"""`doctor`: what is missing is named with the command that mends it."""

import importlib.metadata
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from trimtab.base.config import BASE_MODEL
from trimtab.base.machine import MemoryUse
from trimtab.model import device_record
from trimtab.model.device_record import CheckRow
from trimtab.model.suggestions import FreeMemory, advice, models_that_fit
from trimtab.studies import doctor as module
from trimtab.studies.doctor import doctor


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "not" / "made" / "yet"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("trimtab.model.devices.library", lambda: {"gated": print})  # a compiler may be here or not
    return tmp_path / "not" / "made" / "yet"


def text(report) -> str:
    stream = StringIO()
    report.render(Console(file=stream, width=160))
    return stream.getvalue()


def test_an_empty_cache_names_the_pull_and_a_full_one_does_not(cache):
    report = doctor()
    assert "run: trimtab pull smollm2-135m-q4 minilm-l6" in [gap.remedy for gap in report.missing]
    assert "run: trimtab pull smollm2-135m-q4 minilm-l6" in text(report)
    for name in module.DEMO_MODELS:
        (cache / "models" / name).mkdir(parents=True)
        (cache / "models" / name / "trimtab-model.json").write_text("{}")
    assert doctor().models == module.DEMO_MODELS
    assert not [gap for gap in doctor().missing if "models" in gap.what]


def test_a_package_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    wanted = ["torch>=2", "no-such-thing>=1", 'no-such-extra>=1; extra == "hub"', 'no-such-tool; extra == "dev"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: wanted)
    report = doctor()
    assert [gap.remedy for gap in report.missing if "package" in gap.what] == ["run: pip install 'no-such-thing>=1'"]
    assert [gap.remedy for gap in report.optional] == ["run: pip install 'trimtab[hub]'"]


def test_a_package_that_is_too_old_is_named_with_what_is_here(monkeypatch):
    here = importlib.metadata.version("packaging")
    wanted = ["packaging>=1000", "packaging>=1", 'packaging>=1000; python_version < "3"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: wanted)
    (gap,) = (gap for gap in doctor().missing if "package " in gap.what)
    assert gap.what == f"package packaging >=1000; {here} is here"
    assert gap.remedy == "run: pip install 'packaging>=1000'"


def test_models_that_fit_are_named_with_their_command_and_none_where_none_does(monkeypatch):
    monkeypatch.setattr(module, "free_memory", lambda: FreeMemory(bytes=24e9, passes=2))
    report = doctor()
    assert report.larger == models_that_fit(FreeMemory(bytes=24e9, passes=2))
    assert "\n".join(advice(report.larger, 24.0)) in text(report)
    monkeypatch.setattr(module, "free_memory", lambda: FreeMemory(bytes=0, passes=2))
    assert doctor().larger == ()
    assert f"{BASE_MODEL} is for" in text(doctor())


def test_too_little_memory_and_disk_are_told(monkeypatch):
    monkeypatch.setattr(module, "memory_use", lambda: MemoryUse(2_000_000_000, 1_000_000_000))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1e9})())
    problems = [gap.what for gap in doctor().missing]
    assert "memory: 2.0 of 4 GB" in problems
    assert "disk: 1.0 of 2 GB free" in problems


def test_kernels_that_cannot_be_compiled_are_told_with_what_helps(monkeypatch):
    assert "compiled for this processor" in text(doctor())
    assert not [gap for gap in doctor().optional if "kernels" in gap.what]
    monkeypatch.setattr("trimtab.model.devices.library", dict)
    report = doctor()
    assert "compiled for this processor" not in text(report)
    (gap,) = (gap for gap in report.optional if "kernels" in gap.what)
    assert "install gcc or clang" in gap.remedy
    assert not [gap for gap in report.missing if "kernels" in gap.what]
    monkeypatch.setenv("TRIMTAB_KERNELS", "0")
    (gap,) = (gap for gap in doctor().optional if "kernels" in gap.what)
    assert gap.remedy == "unset TRIMTAB_KERNELS, which turns them off"


def test_figures_are_of_this_machine():
    import psutil

    report = doctor()
    assert 1 <= report.cores <= psutil.cpu_count()
    assert 0 < report.memory_free_gb <= report.memory_gb <= psutil.virtual_memory().total / 1e9 + 0.1
    assert report.compute is not None
    assert report.compute.torch.partition("+")[0] == importlib.metadata.version("torch").partition("+")[0]


def test_a_cache_that_cannot_be_written_is_told(cache, monkeypatch):
    monkeypatch.setattr(
        module.os, "access", lambda path, mode: False
    )  # a test may run as root, whom no permission stops
    (gap,) = (gap for gap in doctor().missing if "written" in gap.what)
    assert (gap.what, gap.remedy) == (
        f"a cache that can be written: {cache} cannot",
        "set TRIMTAB_CACHE to another folder",
    )


def test_what_a_device_check_switched_off_is_told_with_its_table(monkeypatch):
    monkeypatch.setenv("TRIMTAB_DEVICE_CHECK", "1")
    monkeypatch.setattr(device_record, "_known", {})
    assert doctor().checks == ()
    for kernels, gaps in ((True, "optional"), (False, "missing")):
        wrong = CheckRow(
            what="logits",
            precision="bf16" if kernels else "fp32",
            kernels=kernels,
            difference=0.5,
            tolerance=0.1,
            equal=False,
            seconds=1.0,
        )
        device_record.keep(device_record.new_check("cpu", [wrong], 1.0, "2026-12-02"))
        report = doctor()
        (check,) = report.checks
        (gap,) = (gap for gap in getattr(report, gaps) if gap.what == check.headline)
        assert gap.remedy == "report it with the output of: trimtab doctor --device --json"
        stream = StringIO()
        check.render(Console(file=stream, width=160))
        assert [line.split()[:1] for line in stream.getvalue().splitlines()[:2]] == [["part"], ["logits"]]
        assert "5.0e-01" in stream.getvalue()
