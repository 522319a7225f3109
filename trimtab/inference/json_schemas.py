"""Prepares JSON schemas for xgrammar: rejects keywords that it would ignore, and rewrites length bounds as patterns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from trimtab.base.errors import InputError
from trimtab.measurement.format_check import linear_pattern

_ANNOTATIONS = {
    *("$schema", "$id", "$anchor", "$comment", "$defs", "definitions", "title", "description", "default", "examples"),
    *("deprecated", "readOnly", "writeOnly", "format", "contentEncoding", "contentMediaType", "discriminator"),
}
_EXCLUSIVE = (
    "$ref",
    "const",
    "enum",
    "anyOf",
    "oneOf",
    "allOf",
)  # the first of these decides, and nothing beside it is enforced
_SUPPORTED = {
    "object": {"properties", "required", "additionalProperties", "minProperties", "maxProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems"},
    "string": {"minLength", "maxLength", "pattern"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "boolean": set[str](),
    "null": set[str](),
}
_NAMED_SUBSCHEMAS = ("properties", "$defs", "definitions")
_SUBSCHEMAS = ("items", "additionalProperties", "prefixItems", "anyOf", "oneOf", "allOf")
_CHARACTER = r'[^"\\\u0000-\u001f]'
_REMEDY = "leave it out, or say the same in other words"


def supported_schema(text: str) -> str:
    """Return the schema for the grammar library, with length bounds as a pattern: the library would allow control
    characters.

    Raises InputError for text that is not a JSON schema, and for a keyword that cannot be enforced.
    """
    from jsonschema import Draft202012Validator, SchemaError

    try:
        schema = json.loads(text)
        Draft202012Validator.check_schema(schema)
        problem = next(_unsupported(schema), None)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON ({error})", "mend the schema", field="constraint") from None
    except SchemaError as error:
        raise InputError(f"not a JSON schema ({error.message[:200]})", "mend it", field="constraint") from None
    except OverflowError as error:  # of a count in a pattern, which jsonschema compiles with Python's re
        raise InputError(f"not a JSON schema ({error})", "mend its patterns", field="constraint") from None
    for pattern in _patterns(schema):
        require_linear(pattern)
    if problem:
        raise InputError(problem, _REMEDY, field="constraint")
    return json.dumps(_with_length_patterns(schema))


def require_linear(pattern: str) -> None:
    """Raise InputError for an expression that is not regular, or has too many states: each token would wait for
    them.
    """
    try:
        linear_pattern(pattern, whole=True)
    except ValueError as error:
        remedy = "mend it; look-around and back-references are not supported, nor large counts inside others"
        raise InputError(f"not a regular expression that can be used ({error})", remedy, field="constraint") from None


def _unsupported(schema: Any) -> Iterator[str]:
    """Yield a message for each keyword that the library would ignore, in this schema and its subschemas."""
    if not isinstance(schema, dict):
        return
    keywords = set(schema) - _ANNOTATIONS
    exclusive = next((keyword for keyword in _EXCLUSIVE if keyword in schema), None)
    if exclusive is None:
        kinds = (
            [schema["type"]] if isinstance(schema.get("type"), str) else schema.get("type") or _implied_types(keywords)
        )
        supported = {"type"}.union(*(_SUPPORTED[kind] for kind in kinds))
    else:
        supported = {exclusive, "type"} if exclusive in ("const", "enum") else {exclusive}
    for keyword in sorted(keywords - supported):
        beside = f" beside {exclusive}" if exclusive else ""
        yield f"answers cannot be constrained to {keyword[:80]!r}{beside} in a schema"
    if keywords & {"minLength", "maxLength"} and "pattern" in keywords:
        yield "answers cannot be constrained to a length beside 'pattern' in a schema"
    if exclusive == "$ref" and not str(schema["$ref"]).startswith("#"):
        yield f"$ref {str(schema['$ref'])[:80]!r} leads out of the schema"
    if exclusive == "allOf" and len(schema["allOf"]) > 1:
        yield "answers cannot be constrained to 'allOf' of several schemas"
    for part in _subschemas(schema):
        yield from _unsupported(part)


def _patterns(schema: Any) -> Iterator[str]:
    """Yield every pattern of a string, in this schema and its subschemas."""
    if isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        for part in _subschemas(schema):
            yield from _patterns(part)


def _with_length_patterns(schema: Any) -> Any:
    """Return a copy with bounds on a string's length as a pattern, and without formats, which would take its place."""
    if isinstance(schema, list):
        return [_with_length_patterns(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    subschemas = {
        keyword: {name: _with_length_patterns(one) for name, one in part.items()}
        if keyword in _NAMED_SUBSCHEMAS
        else _with_length_patterns(part)
        for keyword, part in schema.items()
        if keyword in (*_NAMED_SUBSCHEMAS, *_SUBSCHEMAS)
    }
    found = {keyword: part for keyword, part in schema.items() if keyword != "format"} | subschemas
    least, most = found.pop("minLength", 0), found.pop("maxLength", "")
    if least or most != "":
        found["pattern"] = f"^{_CHARACTER}{{{least},{most}}}$"
    return found


def _implied_types(keywords: set[str]) -> list[str]:
    """Return the type that the library assumes if none is given."""
    if keywords & {"properties", "additionalProperties"}:
        return ["object"]
    return ["array"] if keywords & {"items", "prefixItems"} else []


def _subschemas(schema: dict[str, Any]) -> Iterator[Any]:
    """Yield the direct subschemas of a schema."""
    for keyword in _NAMED_SUBSCHEMAS:
        yield from schema.get(keyword, {}).values()
    for keyword in _SUBSCHEMAS:
        part = schema.get(keyword)
        yield from part if isinstance(part, list) else [part]
