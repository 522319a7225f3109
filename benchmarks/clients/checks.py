"""What the scripts of clients share: the server, and a check as a line of JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

BASE_URL, API_KEY, MODEL = os.environ["BASE_URL"], os.environ["API_KEY"], os.environ["MODEL"]
QUESTION = "What is 2 plus 3? Use the functions."
FUNCTION_NAMES = ("add", "weather")


def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


def weather(city: str) -> str:
    """Say the weather of a city."""
    return f"It is sunny in {city}."


PARAMETERS = {
    "add": {
        "type": "object",
        "properties": {"a": {"type": "integer", "maximum": 99}, "b": {"type": "integer", "maximum": 99}},
        "required": ["a", "b"],
    },
    "weather": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
    },
}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": f"{name} it", "parameters": PARAMETERS[name]}}
    for name in FUNCTION_NAMES
]


def is_call(name: str, arguments: Any) -> bool:
    """True if these are valid arguments of one of the two functions."""
    given = json.loads(arguments) if isinstance(arguments, str) else arguments
    fits = {"add": lambda: set(given) == {"a", "b"} and all(type(one) is int for one in given.values())}
    fits["weather"] = lambda: set(given) == {"city"} and isinstance(given["city"], str)
    return fits[name]()


def check(name: str, run: Callable[[], Any]) -> None:
    """Print whether `run` returns something true."""
    try:
        failed = {} if (result := run()) else {"failed": f"returned {result!r}"}
    except Exception as error:  # noqa: BLE001 - the client's own, which the result tells
        failed = {"failed": f"{type(error).__name__}: {error}".replace("\n", " ")[:300]}
    print(json.dumps({"check": name, **failed}), flush=True)
