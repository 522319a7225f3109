"""Compiles, caches, loads and calls the C kernels, and says which tensors they support.

Everything that calls a kernel has a way in plain torch, so a C compiler is optional. `TRIMTAB_KERNELS=0` turns all
kernels off.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trimtab.base.files import cache_root

SOURCES = Path(__file__).parent
SECONDS = 60  # after which a compiler is given up
# `gnu11`: multiplications and additions become one instruction; the ways for this processor are tried in order
_FLAGS = ("-std=gnu11", "-O3", "-fPIC")
_FOR_THIS = (("-march=native",), ("-mcpu=native",), ())
# With the threads that torch has brought; on one where it brought others than the compiler means, so that the library
# cannot be loaded.
_THREADS = ("-fopenmp", "-Wno-unknown-pragmas")
# What each kernel is given: p is where numbers lie, n a whole number, f a float. Those of products and causal attention
# are there only
# where they are fast.
_KERNELS = {
    "add_and_norm": "pppppnnf",
    "add_gradient": "ppnn",
    "attend_cached": "pp",
    "attend_causal": "pnnpnnpnnpppnnnnfpppppp",
    "decoder_layers": "pnpppnppp",
    "gated": "pppn",
    "gated_backward": "ppppppn",
    "gather": "pnpnnnfnpp",
    "label_scores": "ppppnn",
    "layer_backward": "pppppppnnpnppppp",
    "layer_forward": "pppppppnnpnppp",
    "linear_bf16": "ppnpnnnp",
    "linear_fp32": "ppnpnnnp",
    "log_sums": "pnnp",
    "narrow": "ppnnnpn",
    "norm_backward": "pppppnnf",
    "pack_bf16": "pnnp",
    "pack_fp32": "pnnp",
    "product": "ppnpnpnpnnnnp",
    "rotate": "pnnpnnppnnnf",
    "softmax": "pnnnfp",
    "softmax_backward": "ppnn",
    "step_adam": "pppppnfffffff",
}
_WIDE = {"linear_fp32", "pack_fp32"}  # kernels of float32; `attend_cached` is of both dtypes, all others of bfloat16
_KINDS = {"p": ctypes.c_void_p, "n": ctypes.c_int64, "f": ctypes.c_float}
Kernel = Callable[..., None]


@functools.cache
def library() -> dict[str, Kernel]:
    """Return the compiled kernels by name; none where they cannot be compiled or `TRIMTAB_KERNELS=0` turns them off.

    `CC` names another compiler; an empty one, or one that is no command line (`CC='"'`), means none. The first call
    may compile for a second; the library stays in the cache's folder `kernels`. If several threads call first, each
    compiles, and the last library stays.
    """
    if os.environ.get("TRIMTAB_KERNELS") == "0":
        return {}
    try:
        compiler = shlex.split(os.environ.get("CC", "cc"))
    except ValueError:  # a quotation mark that is not closed
        return {}
    if not compiler or shutil.which(compiler[0]) is None:
        return {}
    for threads in _THREADS:
        try:
            file = cache_root() / "kernels" / f"{_name([*compiler, threads])}.so"
            if not _is_ours(file):
                _compile(compiler, threads, file)
            if _is_ours(file):
                return _loaded(file)
        except (OSError, RuntimeError, subprocess.SubprocessError):  # where there is no home it is a RuntimeError
            continue
    return {}


def _name(asked: list[str]) -> str:
    """Return a hash of what a library depends on: sources, compiler flags and the processor, since machines may
    share a home."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else [platform.processor()]
    processor = sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    parts = [
        *(one.read_text(encoding="utf-8") for one in sorted(SOURCES.glob("*.[ch]"))),
        " ".join([*asked, *_FLAGS]),
        platform.machine(),
        *processor,
    ]
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _is_ours(file: Path) -> bool:
    """Return True if the file exists, belongs to this user, and nobody else can have written it: its code will run."""
    try:
        found = (file.lstat(), file.parent.lstat())
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found[0].st_mode) and all(
        one.st_uid == os.getuid() and not one.st_mode & (stat.S_IWGRP | stat.S_IWOTH) for one in found
    )


def _compile(compiler: list[str], threads: str, file: Path) -> None:
    """Compile to `file`, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.parent.chmod(0o700)
    sources = [str(source) for source in sorted(SOURCES.glob("*.c"))]
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:

        def compiler_does(*arguments: str) -> bool:
            done = subprocess.run([*compiler, *arguments], cwd=folder, capture_output=True, timeout=SECONDS)
            return done.returncode == 0

        if not any(compiler_does(*_FLAGS, threads, *for_this, "-c", *sources) for for_this in _FOR_THIS):
            return
        # Linked without the compiler's own OpenMP: the threads are those of torch's.
        objects = sorted(path.name for path in Path(folder).glob("*.o"))
        if compiler_does("-shared", *objects, "-o", "kernels.so", "-lm"):
            made = Path(folder) / "kernels.so"
            made.chmod(0o700)
            made.replace(file)


def _loaded(file: Path) -> dict[str, Kernel]:
    found, kernels = ctypes.CDLL(str(file)), {}
    for name, given in _KERNELS.items():
        if hasattr(found, name):
            kernels[name] = kernel = getattr(found, name)
            kernel.argtypes, kernel.restype = [_KINDS[kind] for kind in given], None
    return kernels


def library_hash() -> str:
    """Return a hash of the kernels' sources, the compiler's command and the processor, with its flags."""
    return _name([os.environ.get("CC", "cc")])


_off = 0  # contexts of `kernels_off` that are open, over all threads
_allowed = True  # False where the device check has found that they compute other numbers


def allow_kernels(allowed: bool) -> None:
    """Switch all kernels on or off for this process."""
    global _allowed
    _allowed = allowed


def supports(op: str, *tensors: Tensor) -> bool:
    """Return True if there is a kernel `op` for these tensors: compiled, not turned off, of its dtype on the CPU."""
    dtype = torch.float32 if op in _WIDE else torch.bfloat16
    for tensor in tensors:  # called ten times a layer, so no generator
        if tensor.device.type != "cpu":
            return False
        if tensor.dtype is not dtype and not (op == "attend_cached" and tensor.dtype is torch.float32):
            return False
    return _allowed and not _off and op in library()


@contextmanager
def kernels_off() -> Iterator[None]:
    """Context manager: no kernel is supported within, in any thread, so that everything runs in plain torch."""
    global _off
    _off += 1
    try:
        yield
    finally:
        _off -= 1


def address(numbers: Tensor | None) -> int | None:
    """Return a tensor's address, for a structure that a kernel reads; the caller keeps the tensor alive."""
    return None if numbers is None else numbers.data_ptr()


def call(op: str, *arguments: Tensor | float | ctypes.Array[Any] | None) -> None:
    """Run a kernel that `supports` these tensors. It gets their addresses and not their shapes: sizes are arguments
    of their own."""
    library()[op](*[one.data_ptr() if isinstance(one, Tensor) else one for one in arguments])
