"""Worker process that renders chat templates: a line of JSON in, a line of JSON out.

Templates are untrusted: Jinja's sandbox isolates them from Python, and the limits of this process protect the machine.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from trimtab.base.worker import limit_memory, limit_time


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}` marks assistant text for training; here it renders its content."""

    tags = {"generation"}  # noqa: RUF012 - as declared by Jinja

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _as_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)  # Jinja's own would escape it for HTML


def jinja_environment() -> ImmutableSandboxedEnvironment:
    """Return Jinja as chat templates expect it (transformers' guide on chat templates)."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _as_json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    return environment


def main(megabytes: int, seconds: int, max_letters: int) -> None:
    """Render the requests of standard input; each template has `seconds` of processor time, the process `megabytes` of
    memory."""
    environment = jinja_environment()
    limit_memory(megabytes)
    for line in sys.stdin.buffer:
        limit_time(seconds)
        try:
            request = json.loads(line)
            text = environment.from_string(request["template"]).render(request["variables"])
            answer = (
                {"text": text} if len(text) <= max_letters else {"over": f"gives more than {max_letters:,} letters"}
            )
        except MemoryError:
            answer = {"over": f"takes more than {megabytes:,} MB of memory"}
        except Exception as error:  # noqa: BLE001 - Jinja's own, and whatever a template raises by itself
            answer = {"error": f"{error}"[:500] or type(error).__name__}
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(*(int(value) for value in sys.argv[1:]))
