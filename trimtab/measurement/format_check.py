"""Checks answers against the format of the task: a regular expression in linear time, or a JSON schema."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trimtab.base.errors import InputError
from trimtab.base.files import read_json
from trimtab.base.sanitize import one_line


def linear_pattern(pattern: str, *, whole: bool) -> Callable[[str], bool]:
    """Return a function that is true for texts that match `pattern` (`whole`: from end to end), in time linear in the
    text.

    The engine is that of Rust, which pydantic brings; it has no look-around and no back-references. Python must read
    the pattern too, and as it is meant there. Raises ValueError saying what is not supported.
    """
    from pydantic_core import SchemaError, SchemaValidator, core_schema

    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "error", FutureWarning
            )  # sets of characters that the two engines would read differently
            re.compile(pattern)
    except (re.error, FutureWarning, OverflowError, RecursionError) as error:
        raise ValueError(one_line(error)) from None
    anchored = rf"\A(?:{pattern})\z" if whole else pattern
    try:
        matcher = SchemaValidator(core_schema.str_schema(pattern=anchored, regex_engine="rust-regex"))
    except SchemaError as error:
        reason = str(error).rpartition("error: ")[2].strip() or one_line(error)
        raise ValueError(reason.splitlines()[-1].strip().removesuffix(".")) from None
    return matcher.isinstance_python


def format_checker(format: str, folder: Path) -> Callable[[str], bool]:
    """Return a check of an answer against a JSON schema file (a path that ends in .json) or a regular expression that
    it must match whole.

    No format fits every answer. Raises InputError for a schema or an expression that cannot be used; a schema never
    fetches another one from the network.
    """
    if not format:
        return lambda _: True
    if format.endswith(".json"):
        return _schema_checker(folder / format)
    try:
        fits = linear_pattern(format, whole=True)
    except ValueError as error:
        problem, remedy = f"not a regular expression of linear time ({error})", "mend it, or name a .json schema"
        raise InputError(problem, remedy, field="task.format") from None
    return lambda answer: fits(answer.strip())


def _schema_checker(path: Path) -> Callable[[str], bool]:
    from jsonschema import SchemaError, ValidationError, validators
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    try:
        schema = read_json(path)
        patterns = {pattern: linear_pattern(pattern, whole=False) for pattern in _patterns(schema)}
        kind = validators.validator_for(schema, default=validators.Draft202012Validator)
        kind.check_schema(schema)
    except OSError:
        raise InputError("the schema file does not exist", "mend task.format", file=path) from None
    except (ValueError, RecursionError, SchemaError) as error:
        reason = getattr(error, "message", error)
        raise InputError(f"not a JSON schema ({reason})", "mend the file", file=path) from None

    def pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
        if isinstance(instance, str) and not patterns[pattern](instance):
            yield ValidationError("does not match")

    validator = validators.extend(kind, {"pattern": pattern})(schema, registry=Registry())

    def fits(answer: str) -> bool:
        try:
            value = json.loads(answer, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            return False
        try:
            return bool(validator.is_valid(value))
        except Unresolvable as error:
            raise InputError(f"$ref {error.ref!r} leads nowhere", "put it under $defs", file=path) from None
        except RecursionError:
            return False

    return fits


def _patterns(schema: Any) -> Iterator[str]:
    """Yield every pattern of a schema; raises ValueError for patterns of names, which the library matches without a
    time limit."""
    left = [schema]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            if isinstance(part.get("patternProperties"), dict):
                raise ValueError("patternProperties is not supported, name the properties")
            if isinstance(part.get("pattern"), str):
                yield part["pattern"]
        left += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
