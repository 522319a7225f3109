"""Starts Ray on this machine for one run (`private_ray`): nobody else reaches it, and nothing of it is left.

Without this, Ray listens on every address of the machine, and keeps its token and its session where other users can
read them: whoever has both runs any code as the user of the study.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trimtab.base.errors import InputError
from trimtab.scale import ray_cleaner

LOOPBACK = "127.0.0.1"
# Ray's sockets are files in its folder. A path of a socket has at most 107 characters, 103 on macOS; Ray's part of it
# has 68.
LONGEST_FOLDER = 35
_VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")


@contextmanager
def private_ray(ray: Any) -> Iterator[dict[str, Any]]:
    """Context manager: yields the arguments with which `ray.init` starts a Ray that this user alone reaches; Ray must
    be started, and shut down, within it.

    It listens on loopback addresses only, and asks for a token of this run. Session and token lie in a folder that
    this user alone can enter. The folder is removed at the end; if this process is killed, `ray_cleaner` removes it
    together with the processes that Ray left.
    """
    folder = Path(tempfile.mkdtemp(prefix="trimtab-", dir=_short_temporary_folder()))  # mode 0700
    cleaner = subprocess.Popen(
        [sys.executable, "-P", ray_cleaner.__file__, str(folder), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a signal to the group of this process does not end it
    )
    former = {name: os.environ.pop(name, None) for name in _VARIABLES}
    is_cluster = ray._private.ray_constants.ENABLE_RAY_CLUSTER
    try:
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32), encoding="ascii")
        # The last one makes Ray's processes listen on loopback addresses on every system, as by default on macOS.
        values = "token", None, str(token), "0"
        os.environ.update({name: value for name, value in zip(_VARIABLES, values, strict=True) if value is not None})
        ray._private.ray_constants.ENABLE_RAY_CLUSTER = False  # Ray read the variable when it was imported
        _read_variables_again(ray)
        # Ray opens its folder to all (0777), so it gets one within ours.
        yield {"_temp_dir": str(folder / "ray"), "_node_ip_address": LOOPBACK}
    finally:
        for name, value in former.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        ray._private.ray_constants.ENABLE_RAY_CLUSTER = is_cluster
        _read_variables_again(ray)
        shutil.rmtree(folder, ignore_errors=True)
        cleaner.kill()
        cleaner.wait()


def require_loopback(ray: Any) -> None:
    """Raise InputError if a version of Ray ignores what `private_ray` asks for and can be reached by others."""
    addresses = {str(node["NodeManagerAddress"]) for node in ray.nodes()}
    if addresses != {LOOPBACK}:
        problem = f"Ray {ray.__version__} listens on {', '.join(sorted(addresses))}, where others reach it"
        raise InputError(problem, "install another version of Ray, or start the study without --on", field="--on")


def _short_temporary_folder() -> str:
    folder = tempfile.gettempdir()
    is_short = len(f"{folder}/trimtab-12345678") <= LONGEST_FOLDER
    return folder if is_short or os.name == "nt" else "/tmp"  # noqa: S108 - the folder made there is this user's alone


def _read_variables_again(ray: Any) -> None:
    """Let Ray read mode and token of the environment, which it otherwise does once in a process."""
    ray._raylet.Config.initialize("")
    ray._raylet.AuthenticationTokenLoader.instance().reset_cache()
