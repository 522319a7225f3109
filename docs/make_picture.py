"""Takes the README's picture: the first screen of a report in headless Chromium, 1280 px wide, as
docs/images/report.png."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
)


def take(report: Path, picture: Path, height: int) -> str | None:
    """Write the picture; the problem in words when it cannot be taken."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        return f"no browser on PATH (looked for {', '.join(BROWSERS)}); install Chromium, then run this again"
    if not report.is_file():
        return f"{report}: no such report; a study writes it, for instance: make demo"
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser,
            *FLAGS,
            f"--user-data-dir={profile}",
            f"--window-size=1280,{height}",
            f"--screenshot={picture.resolve()}",
            report.resolve().as_uri(),
        ]
        run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if run.returncode != 0 or not picture.is_file():
        return f"{browser} took no picture (exit {run.returncode}): {run.stderr.strip()[-300:]}"
    return None


def main() -> int:
    """Parse the arguments, take the picture, say where it lies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, help="a report.html")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images" / "report.png")
    parser.add_argument("--height", type=int, default=1240, help="px of the page that are shown")
    chosen = parser.parse_args()
    problem = take(chosen.report, chosen.out, chosen.height)
    print(problem or chosen.out, file=sys.stderr if problem else sys.stdout)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
