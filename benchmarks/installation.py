"""Measures an installation: packages, MB and seconds of the core in fresh environments, and what each extra adds.

The wheel is built from this clone and installed by uv, with its own settings. The core is installed into new
environments with an empty and with a filled cache. Then each extra is installed on top of the core and taken off
again. Sizes are those of the installed files. Seconds hang on the network and the load, which the result names; pip
takes longer, most of it to choose versions. UV_FIND_LINKS and UV_CONSTRAINT name a CPU build of torch; without them
PyPI's on Linux is one for CUDA.

    python benchmarks/installation.py [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

from trimtab.base.files import write_json
from trimtab.base.machine import describe_machine

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "installation.json"
LARGE_MB = 20  # packages from this size on are named

LIST = """
import json
from importlib.metadata import distributions
found = {}
for one in distributions():
    files = [one.locate_file(file) for file in one.files or ()]
    found[one.metadata["Name"]] = [one.version, sum(file.stat().st_size for file in files if file.is_file())]
print(json.dumps(found))
"""


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=os.environ | environment, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout


def new_environment(folder: Path) -> Path:
    """Create an environment and return the path of its Python."""
    run(sys.executable, "-m", "venv", folder)
    return folder / "bin" / "python"


def packages(python: Path) -> dict[str, Any]:
    """Version and bytes of each installed package, without those that every new environment has."""
    found: dict[str, Any] = json.loads(run(python, "-c", LIST))
    return {name: told for name, told in found.items() if name not in ("pip", "setuptools")}


def described(found: dict[str, Any]) -> dict[str, Any]:
    sizes = {name: round(size / 1e6) for name, (_, size) in sorted(found.items(), key=lambda item: -item[1][1])}
    return {
        "packages": len(found),
        "mb": round(sum(size for _, size in found.values()) / 1e6),
        "large": {name: mb for name, mb in sizes.items() if mb >= LARGE_MB},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULT)
    out = parser.parse_args().out
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys() - {"dev"}
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        builder = new_environment(place / "builder")
        run(builder, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", place, ROOT)
        run(builder, "-m", "pip", "install", "--quiet", "uv")
        (wheel,) = place.glob("trimtab-*.whl")

        def install(python: Path, what: str) -> int:
            """Install into an environment; the seconds that it took."""
            begun, uv = time.perf_counter(), builder.with_name("uv")
            run(uv, "pip", "install", "--quiet", "--python", python, what, UV_CACHE_DIR=str(place / "uv"))
            return round(time.perf_counter() - begun)

        seconds = {}
        for which in ("empty cache", "warm cache"):
            python = new_environment(place / which.replace(" ", "-"))
            seconds[which] = install(python, str(wheel))
            print(f"core, {which}: {seconds[which]} s", flush=True)
        core = packages(python)
        about = {"torch": core["torch"][0], "python": sys.version.split()[0], "machine": describe_machine()}
        result: dict[str, Any] = {"core": described(core) | {"seconds": seconds}, "extras": {}, **about}
        for extra in sorted(extras, key=lambda name: (name == "all", name)):
            took = install(python, f"{wheel}[{extra}]")
            after = packages(python)
            added = {name: told for name, told in after.items() if name not in core}
            result["extras"][extra] = described(added) | {"seconds": took}
            print(extra, result["extras"][extra], flush=True)
            if added:
                run(python, "-m", "pip", "uninstall", "--quiet", "--yes", *added)
            load.append(os.getloadavg()[0])
            result["load"] = [round(min(load), 1), round(max(load), 1)]
            write_json(out, result)


if __name__ == "__main__":
    main()
