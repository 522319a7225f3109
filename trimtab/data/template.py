"""Renders a model's chat template in a separate process with limited memory and time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from trimtab.base.errors import InputError
from trimtab.base.sanitize import visible
from trimtab.base.worker import Worker

MEGABYTES, SECONDS, LONGEST = 512, 5, 1_000_000
"""Limits of a template: memory (MB), processor time (s), and characters of its output."""
WALL_SECONDS = 60.0  # until the process is killed
_LONGEST_LINE = 8 * LONGEST  # of JSON, its escapes counted
_REMEDY = "choose another base model, or mend its chat template"


def render_template(template: str, variables: Mapping[str, Any], *, cached: bool = True) -> str:
    """Return the text that `template` gives for `variables` (JSON values); `cached` keeps it for the next call.

    Raises InputError if the template exceeds the limits, and ValueError with its own message if it refuses or fails.
    """
    request = json.dumps({"template": template, "variables": variables})
    return _render_cached(request) if cached else _render(request)


def _render(request: str) -> str:
    answer = _renderer.ask(request)
    if answer is None:
        answer = {"over": f"takes more than {SECONDS} s of processor time or {MEGABYTES} MB of memory"}
    if "error" in answer:
        raise ValueError(visible(" ".join(answer["error"].split())))
    if "over" in answer:
        raise InputError(f"the chat template {answer['over']}", _REMEDY, field="base.model")
    return str(answer["text"])


_render_cached = lru_cache(maxsize=4096)(_render)


def _worker() -> Worker:
    """Return the process for all templates."""
    script = Path(__file__).with_name("template_worker.py")
    arguments = [str(MEGABYTES), str(SECONDS), str(LONGEST)]
    return Worker(script, arguments, seconds=WALL_SECONDS, longest=_LONGEST_LINE)


_renderer = _worker()
