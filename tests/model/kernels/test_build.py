"""The library of kernels: compiled once, kept where nobody else can have written it, and done without where there is
no compiler."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from trimtab.model.kernels import build as compiled

needs_compiler = pytest.mark.skipif(not compiled.library(), reason="no C compiler")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path))
    return tmp_path / "kernels"


@pytest.fixture
def one_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest source alone: how a library is kept does not hang on what is in it, and all of it takes seconds
    to compile."""
    for file in [*compiled.SOURCES.glob("*.h"), compiled.SOURCES / "optimizer.c"]:
        place = tmp_path / "sources" / file.name
        place.parent.mkdir(exist_ok=True)
        shutil.copy(file, place)
    monkeypatch.setattr(compiled, "SOURCES", place.parent)


def fresh() -> dict[str, compiled.Kernel]:
    """As a new process finds it."""
    return compiled.library.__wrapped__()


@needs_compiler
@pytest.mark.usefixtures("one_source")
def test_it_is_compiled_once(cache: Path) -> None:
    assert fresh()
    (file,) = cache.iterdir()
    made = file.stat().st_mtime_ns
    assert fresh()
    assert [one.stat().st_mtime_ns for one in cache.iterdir()] == [made]


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_compilers_make_the_same(cache: Path, compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    monkeypatch.setenv("CC", compiler)
    found = fresh()
    assert found
    gate = torch.linspace(-9, 9, 128).to(torch.bfloat16)
    out = torch.empty_like(gate)
    found["gated"](gate.data_ptr(), gate.data_ptr(), out.data_ptr(), len(gate))
    exact = torch.nn.functional.silu(gate.double()) * gate.double()
    assert ((out.double() - exact).abs() <= 2.0**-7 * exact.abs()).all()


@needs_compiler
@pytest.mark.parametrize(
    "flags",
    ["", *(pytest.param(f" -mno-{lacking}", marks=pytest.mark.other_processor) for lacking in ("avx512f", "avx"))],
)
def test_silu_and_its_gradients_hold_over_all_numbers(cache: Path, flags: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On every kind of processor: of a large negative number 0 like torch's, of minus infinity 0 as well, its limit."""
    if flags and os.uname().machine != "x86_64":
        pytest.skip("flags of another processor")
    monkeypatch.setenv("CC", f"{os.environ.get('CC', 'cc')}{flags}")
    found = fresh() if flags else compiled.library()
    gate = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)  # every bfloat16
    ones = torch.ones_like(gate)
    out, again, to_gate, to_up = (torch.empty_like(gate) for _ in range(4))
    found["gated"](*(one.data_ptr() for one in (gate, ones, out)), len(gate))
    given = (gate, ones, ones, to_gate, to_up, again)
    found["gated_backward"](*(one.data_ptr() for one in given), len(gate))
    assert torch.equal(out.nan_to_num(7.0), again.nan_to_num(7.0))
    assert torch.equal(out.nan_to_num(7.0), to_up.nan_to_num(7.0))

    exact = gate.double().requires_grad_()
    theirs = torch.nn.functional.silu(exact)
    (slope,) = torch.autograd.grad(theirs.sum(), exact)
    finite = gate.isfinite()
    for ours, right in ((out, theirs), (to_gate, slope)):
        error = (ours.double() - right).abs()[finite]
        assert (error <= 2.0**-7 * right.abs()[finite] + 1e-36).all()  # where it is next to nothing it may be nothing

    lowest = gate == float("-inf")
    assert (out[lowest], to_gate[lowest]) == (0.0, 0.0)
    assert out[lowest].signbit().all()
    assert (out[gate == float("inf")] == float("inf")).all()
    assert out[gate.isnan()].isnan().all()
    assert to_gate[gate.isnan()].isnan().all()


@needs_compiler
@pytest.mark.usefixtures("one_source")
@pytest.mark.parametrize("who", ["file", "folder"])
def test_what_others_may_have_written_is_made_anew(cache: Path, who: str) -> None:
    assert fresh()
    (file,) = cache.iterdir()
    file.unlink()
    file.write_bytes(b"something else")
    (file if who == "file" else cache).chmod(0o777)
    assert fresh()
    assert file.read_bytes() != b"something else"
    assert (cache.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o700)


@needs_compiler
@pytest.mark.usefixtures("one_source")
def test_a_link_is_not_followed(cache: Path, tmp_path: Path) -> None:
    assert fresh()
    (file,) = cache.iterdir()
    elsewhere = tmp_path / "elsewhere.so"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    assert fresh()
    assert not file.is_symlink()


@pytest.mark.usefixtures("one_source")
@pytest.mark.parametrize(
    "compiler", ["", " ", "no-such-compiler", "false", "true", '"', "cc 'x", "\udcff", "/", "cc \udcff"]
)
def test_without_a_compiler_that_works_there_are_none(
    cache: Path, compiler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`true` says that it compiled, and made nothing; what is no command line, or no UTF-8, is no compiler."""
    monkeypatch.setenv("CC", compiler)
    assert not fresh()
    assert not cache.exists() or not list(cache.iterdir())


def test_a_cache_that_cannot_be_written_is_done_without(cache: Path) -> None:
    cache.write_text("in the way")
    assert not fresh()


def test_only_bfloat16_on_a_processor_is_taken() -> None:
    assert not compiled.supports("step_adam", torch.zeros(2))
    assert not compiled.supports("step_adam", torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2))
    assert compiled.supports("step_adam", torch.zeros(2, dtype=torch.bfloat16)) is ("step_adam" in compiled.library())


@needs_compiler
def test_one_switch_turns_all_kernels_off(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = torch.zeros(2, dtype=torch.bfloat16)
    with compiled.kernels_off():
        assert not compiled.supports("step_adam", numbers)
        with compiled.kernels_off():
            assert not compiled.supports("step_adam", numbers)
        assert not compiled.supports("step_adam", numbers)
    assert compiled.supports("step_adam", numbers)
    monkeypatch.setenv("TRIMTAB_KERNELS", "0")
    assert not fresh()
