"""Prepares JSON schemas for xgrammar: rewrites what it would ignore in keywords that it enforces, and refuses the rest.

Every answer that the library allows for a rewritten schema is valid for the schema as it was given.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import lru_cache
from itertools import combinations
from typing import Any

from trimtab.base.errors import InputError
from trimtab.inference.schema_patterns import bounded_pattern, length_pattern, names_except
from trimtab.measurement.format_check import linear_pattern

Schema = dict[str, Any]

_ANNOTATIONS = {
    *("$schema", "$id", "$anchor", "$comment", "$defs", "definitions", "title", "description", "default", "examples"),
    *("deprecated", "readOnly", "writeOnly", "format", "contentEncoding", "contentMediaType", "discriminator"),
}
_NUMERIC = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
_SUPPORTED = {
    "object": {"properties", "required", "additionalProperties", "minProperties", "maxProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems"},
    "string": {"minLength", "maxLength", "pattern"},
    "integer": _NUMERIC,
    "number": _NUMERIC,
    "boolean": set[str](),
    "null": set[str](),
}
_KNOWN = {"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"}.union(*_SUPPORTED.values())
_LEAST = {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"}
_MOST = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"}
MAX_PARTS = 50_000  # subschemas visited, as references and unions multiply
MAX_MULTIPLES = 1_000  # values of a bounded multipleOf, which are listed
MAX_DIVISOR = 1_024  # the library ignores a larger multipleOf
_REMEDY = "leave it out, or say the same in other words"


def supported_schema(text: str) -> str:
    """Return a schema that the grammar library enforces completely; its answers are valid for the schema `text`.

    Raises InputError for text that is not a JSON schema, and for a schema that cannot be enforced.
    """
    from jsonschema import Draft202012Validator, SchemaError

    try:
        schema = json.loads(text)
        Draft202012Validator.check_schema(schema)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON ({error})", "mend the schema", field="constraint") from None
    except SchemaError as error:
        raise InputError(f"not a JSON schema ({error.message[:200]})", "mend it", field="constraint") from None
    except OverflowError as error:  # of a count in a pattern, which jsonschema compiles with Python's re
        raise InputError(f"not a JSON schema ({error})", "mend its patterns", field="constraint") from None
    try:
        return json.dumps(_Rewriter(schema, len(text)).rewritten())
    except RecursionError:
        raise _refusal("a schema that refers to itself where it would have to be merged") from None


def require_linear(pattern: str) -> None:
    """Raise InputError for an expression that is not regular, or has too many states: each token would wait for
    them.
    """
    try:
        linear_pattern(pattern, whole=True)
    except ValueError as error:
        remedy = "mend it; look-around and back-references are not supported, nor large counts inside others"
        raise InputError(f"not a regular expression that can be used ({error})", remedy, field="constraint") from None


@lru_cache(maxsize=64)
def _search(pattern: str) -> Callable[[str], bool]:
    """Return a function that is true for texts in which a pattern matches; raises as `require_linear`."""
    require_linear(pattern)
    return linear_pattern(pattern, whole=False)


class _EmptyError(InputError):
    """No answer fits a schema; an option of a union that is so is left out."""


def _empty(problem: str) -> _EmptyError:
    return _EmptyError(problem, "mend it", field="constraint")


def _refusal(problem: str, remedy: str = _REMEDY) -> InputError:
    return InputError(problem, remedy, field="constraint")


def _without_annotations(schema: Schema) -> Schema:
    return {keyword: part for keyword, part in schema.items() if keyword not in _ANNOTATIONS}


class _Rewriter:
    """Rewrites one schema: references become definitions of their own, `allOf` one schema, `oneOf` an `anyOf`."""

    def __init__(self, root: Any, characters: int) -> None:
        self._root = root
        self._validator: Any = self._root_validator()
        self._check_cost = 1 + characters // 1_000  # of one value against the schema
        self._definitions: dict[str, Any] = {}  # by name
        self._names: dict[str, str] = {}  # of definitions, by reference
        self._left = MAX_PARTS

    def rewritten(self) -> Any:
        """Return the whole schema."""
        schema = self._schema(self._root)
        return schema | {"$defs": self._definitions} if self._definitions else schema

    def _schema(self, schema: Any) -> Any:
        """Return one subschema rewritten."""
        if isinstance(schema, bool):
            return schema
        self._count()
        if "$id" in schema and schema is not self._root:
            raise _refusal("answers cannot be constrained to an '$id' within a schema")
        plain = _without_annotations(schema)
        if set(plain) == {"$ref"}:
            return self._definition(plain["$ref"])
        if set(plain) == {"allOf"} and len(plain["allOf"]) == 1:
            return self._schema(plain["allOf"][0])
        parts = list(self._conjuncts(plain))
        if any("enum" in part or "const" in part for part in parts):
            return {"enum": self._values(plain, parts)}
        merged, unions = self._merged(parts)
        return self._union(self._options(merged, unions)) if unions else self._typed(merged)

    def _union(self, options: Sequence[Schema]) -> Schema:
        """Return the union of options, without those that no answer fits."""
        rewritten = []
        for option in options:
            with suppress(_EmptyError):
                rewritten.append(self._schema(option))
        if not rewritten:
            raise _empty("a union of which no answer fits an option")
        return {"anyOf": rewritten}

    def _count(self, cost: int = 1) -> None:
        self._left -= cost
        if self._left < 0:
            raise _refusal(f"a schema that unfolds into more than {MAX_PARTS:,} parts", "simplify it")

    def _definition(self, reference: str) -> Schema:
        """Return the reference to the definition that stands for `reference`."""
        if reference not in self._names:
            target = self._target(reference)
            name = self._names[reference] = str(len(self._names))
            try:
                self._definitions[name] = self._schema(target)
            except _EmptyError as error:  # others may refer to it already
                raise _refusal(error.problem, error.remedy) from None
        return {"$ref": f"#/$defs/{self._names[reference]}"}

    def _target(self, reference: str) -> Any:
        """Return what a reference (a JSON pointer, RFC 6901) names."""
        target, (before, _, pointer) = self._root, reference.partition("#")
        if before or not reference.startswith("#"):
            raise _refusal(f"$ref {reference[:80]!r} leads out of the schema", "put it under $defs")
        for part in pointer.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            try:
                target = target[int(key)] if isinstance(target, list) else target[key]
            except (KeyError, IndexError, TypeError, ValueError):
                target = None
        if not isinstance(target, dict | bool) or (pointer and not pointer.startswith("/")):
            raise _refusal(f"$ref {reference[:80]!r} leads nowhere", "put it under $defs")
        return target

    def _conjuncts(self, schema: Any, seen: tuple[str, ...] = ()) -> Iterator[Schema]:
        """Yield the schemas that hold together, without references and `allOf`."""
        self._count()
        if schema is False:
            raise _empty("a schema that no answer fits")
        if schema is True:
            return
        plain = _without_annotations(schema)
        strange = next(iter(sorted(set(plain) - _KNOWN)), None)
        if strange:
            raise _refusal(f"answers cannot be constrained to {strange[:80]!r} in a schema")
        own = {keyword: part for keyword, part in plain.items() if keyword not in ("$ref", "allOf")}
        if own:
            yield own
        if reference := plain.get("$ref"):
            if reference in seen:
                raise _refusal(f"$ref {reference[:80]!r} refers to itself", "mend it")
            yield from self._conjuncts(self._target(reference), (*seen, reference))
        for part in plain.get("allOf", ()):
            yield from self._conjuncts(part, seen)

    def _values(self, schema: Schema, parts: Sequence[Schema]) -> list[Any]:
        """Return the values of the first `enum` or `const` that the whole schema allows."""
        values = next(part.get("enum", [part.get("const")]) for part in parts if "enum" in part or "const" in part)
        is_alone = set(schema) in ({"enum"}, {"const"})
        fitting = values if is_alone else [value for value in values if self._is_valid(value, schema)]
        if not fitting:
            raise _empty("an enum of which no value fits")
        return fitting

    def _is_valid(self, value: Any, schema: Any) -> bool:
        """True if a value is valid for a part of the schema."""
        from referencing.exceptions import Unresolvable

        self._count(self._check_cost)
        try:
            return bool(self._validator.evolve(schema=schema).is_valid(value))
        except Unresolvable as error:
            raise _refusal(f"$ref {error.ref[:80]!r} leads nowhere", "put it under $defs") from None

    def _root_validator(self) -> Any:
        """Return a validator that matches patterns in linear time, counts references and fetches none."""
        from jsonschema import Draft202012Validator, ValidationError, validators
        from referencing import Registry

        def pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
            if isinstance(instance, str) and not _search(pattern)(instance):
                yield ValidationError("does not match")

        def reference(validator: Any, name: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
            self._count(self._check_cost)  # references to references may double at each step
            yield from Draft202012Validator.VALIDATORS["$ref"](validator, name, instance, schema)

        checker = validators.extend(Draft202012Validator, {"pattern": pattern, "$ref": reference})
        return checker(self._root if isinstance(self._root, dict) else {}, registry=Registry())

    def _merged(self, parts: Sequence[Schema]) -> tuple[Schema, list[Schema]]:
        """Return the conjunction of schemas, and the unions that hold beside it."""
        merged: Schema = {}
        unions: list[Schema] = [{kind: part[kind]} for part in parts for kind in ("anyOf", "oneOf") if kind in part]
        for part in parts:
            plain = {keyword: value for keyword, value in part.items() if keyword not in ("anyOf", "oneOf")}
            merged = _both(merged, plain) if merged else plain
        return merged, unions

    def _options(self, merged: Schema, unions: Sequence[Schema]) -> list[Schema]:
        """Return the options of the first union, each with all that holds beside it; those of `oneOf` exclude one
        another.
        """
        options, is_one = _with_beside(merged, unions), "oneOf" in unions[0]
        tags: list[set[str]] = [set() for _ in options]
        for first, second in combinations(range(len(options)), 2) if is_one else ():
            tag = self._tag(options[first], options[second])
            if tag is None:
                problem = f"options {first + 1} and {second + 1} of 'oneOf' are not seen to exclude each other"
                raise _refusal(problem, "give them a property with different constants, or say anyOf")
            if tag:
                tags[first].add(tag)
                tags[second].add(tag)
        return [
            {"allOf": [option, {"required": sorted(names)}]} if names else option
            for option, names in zip(options, tags, strict=True)
        ]

    def _tag(self, one: Any, other: Any) -> str | None:
        """Return how two schemas exclude each other: "" if no answer for one is valid for the other, or the name of a
        property that tells answers apart which have it; None if neither is seen.
        """
        parts = [list(self._conjuncts(schema)) for schema in (one, other)]
        for mine, theirs in zip(parts, (other, one), strict=True):
            listed = next((part for part in mine if "enum" in part or "const" in part), None)
            values = listed and listed.get("enum", [listed.get("const")])
            if values and not any(self._is_valid(value, theirs) for value in values):
                return ""
        sides = [self._merged(part) for part in parts]
        for (merged, unions), theirs in zip(sides, (other, one), strict=True):
            if unions:
                return "" if all(self._tag(option, theirs) == "" for option in _with_beside(merged, unions)) else None
        return self._property_tag(sides[0][0], sides[1][0])

    def _property_tag(self, one: Schema, other: Schema) -> str | None:
        """Return how two schemas without unions exclude each other, as `_tag` does."""
        common = (_answer_types(one) & _types(other)) | (_types(one) & _answer_types(other))
        if not common or (common == {"object"} and _lacks(one, other) and _lacks(other, one)):
            return ""
        if common == {"object"}:
            properties, others = one.get("properties", {}), other.get("properties", {})
            return next(
                (key for key in properties if key in others and self._tag(properties[key], others[key]) == ""), None
            )
        return None

    def _typed(self, schema: Schema) -> Any:
        """Return a schema without references and unions, one type at a time."""
        if not schema:
            return {}
        kinds = _listed_types(schema["type"]) if "type" in schema else _implied_types(schema)
        if not kinds:
            if "type" in schema:
                raise _empty("a schema that no answer fits")
            raise _refusal(f"answers cannot be constrained to {min(schema)!r} without a type in a schema", "state it")
        typed = [
            self._of_type(kind, {key: value for key, value in schema.items() if key in _SUPPORTED[kind]})
            for kind in sorted(kinds)
        ]
        return typed[0] if len(typed) == 1 else {"anyOf": typed}

    def _of_type(self, kind: str, schema: Schema) -> Schema:
        if kind == "object":
            return self._object(schema)
        if kind == "array":
            return self._array(schema)
        if kind == "string":
            return _string(schema)
        return _number(kind, schema) if kind in ("integer", "number") else {"type": kind}

    def _object(self, schema: Schema) -> Schema:
        """Return the schema of an object; a property that must be there and is not named is one that may be added."""
        properties, required = dict(schema.get("properties", {})), schema.get("required", [])
        more = schema.get("additionalProperties", "properties" not in schema and not required)
        for name in required:
            properties.setdefault(name, schema.get("additionalProperties", True))
        forbidden = [name for name, part in properties.items() if part is False]
        if set(forbidden) & set(required):
            raise _empty("a schema that requires a property and does not allow it")
        if more is not False and schema.get("minProperties", 0) > len(required) + 1:
            raise _refusal("answers cannot be constrained to 'minProperties' of names that are not given")
        whole: Schema = {key: schema[key] for key in ("minProperties", "maxProperties") if key in schema}
        whole |= {"type": "object", "required": list(dict.fromkeys(required))}
        whole["properties"] = {name: self._schema(part) for name, part in properties.items() if part is not False}
        if more is not False:
            whole["propertyNames"] = {"pattern": names_except(properties)}
        return whole | {"additionalProperties": self._schema(more)}

    def _array(self, schema: Schema) -> Schema:
        whole = {"type": "array", **schema}
        if "prefixItems" in schema:
            whole["prefixItems"] = [self._schema(part) for part in schema["prefixItems"]]
        if "items" in schema or "prefixItems" not in schema or schema.get("minItems", 0) > len(schema["prefixItems"]):
            whole["items"] = self._schema(schema.get("items", True))
        return whole


def _with_beside(merged: Schema, unions: Sequence[Schema]) -> list[Schema]:
    """Return the options of the first union, each with what holds beside it."""
    (options,) = unions[0].values()
    beside = [part for part in (merged, *unions[1:]) if part]
    return [{"allOf": [option, *beside]} for option in options]


def _listed_types(kinds: str | Sequence[str]) -> set[str]:
    """Return the types that `type` lists; a number may be an integer, too."""
    listed = {kinds} if isinstance(kinds, str) else set(kinds)
    return listed - {"integer"} if "number" in listed else listed


def _types(schema: Schema) -> set[str]:
    """Return the types of the values that a merged schema allows; where it allows numbers, integers too."""
    listed = _listed_types(schema.get("type", list(_SUPPORTED)))
    return listed | {"integer"} if "number" in listed else listed


def _answer_types(schema: Schema) -> set[str]:
    """Return the types of the answers for a merged schema."""
    return _types(schema) if "type" in schema else _implied_types(schema) or _types(schema)


def _implied_types(schema: Schema) -> set[str]:
    """Return the type that a schema without one is about; answers are of that type alone."""
    return {kind for kind in ("object", "array", "string") if schema and schema.keys() <= _SUPPORTED[kind]}


def _lacks(one: Schema, other: Schema) -> bool:
    """True if no answer for `one` is valid for `other`, as a property is missing or one too many."""
    mine, theirs = set(one.get("properties", {})), set(other.get("properties", {}))
    closed = not one.get("additionalProperties", False)
    missing = closed and bool(set(other.get("required", ())) - mine - set(one.get("required", ())))
    return missing or (other.get("additionalProperties") is False and bool(set(one.get("required", ())) - theirs))


def _both(one: Schema, other: Schema) -> Schema:
    """Return the conjunction of two schemas without references and unions; raises InputError if it cannot be said."""
    if any(
        "prefixItems" in first and {"items", "prefixItems"} & set(second)
        for first, second in ((one, other), (other, one))
    ):
        raise _refusal("answers cannot be constrained to 'prefixItems' in one of several schemas of an array")
    merged = one | other
    for keyword in set(one) & set(other):
        merged[keyword] = _both_values(keyword, one[keyword], other[keyword])
    if {"properties", "additionalProperties"} & set(merged):
        merged |= _both_properties(one, other)
    return merged


def _both_values(keyword: str, one: Any, other: Any) -> Any:
    if one == other:
        return one
    if keyword in _LEAST:
        return max(one, other)
    if keyword in _MOST:
        return min(one, other)
    if keyword == "required":
        return list(dict.fromkeys([*one, *other]))
    if keyword == "type":
        common = _types({"type": one}) & _types({"type": other})
        return sorted(_listed_types(sorted(common)))
    if keyword in ("properties", "additionalProperties"):
        return one  # merged by `_both_properties`
    if keyword == "items":
        return {"allOf": [one, other]}
    raise _refusal(f"answers cannot be constrained to two of {keyword!r} at once in a schema")


def _both_properties(one: Schema, other: Schema) -> Schema:
    """Return the properties of two schemas together; where one does not name a property, its additional ones count."""

    def both(first: Any, second: Any) -> Any:
        if first is False or second is False:
            return False
        parts = [part for part in (first, second) if part is not True]
        return {"allOf": parts} if len(parts) > 1 else parts[0] if parts else True

    sides = [(part.get("properties", {}), part.get("additionalProperties", True)) for part in (one, other)]
    names = dict.fromkeys([*sides[0][0], *sides[1][0]])
    properties = {name: both(*(named.get(name, more) for named, more in sides)) for name in names}
    if not any("additionalProperties" in part for part in (one, other)):
        return {"properties": properties}
    return {"properties": properties, "additionalProperties": both(sides[0][1], sides[1][1])}


def _string(schema: Schema) -> Schema:
    """Return the schema of a string, with bounds on its length as a pattern: the library would allow control
    characters.
    """
    least, most, pattern = schema.get("minLength", 0), schema.get("maxLength"), schema.get("pattern")
    if pattern is not None:
        require_linear(pattern)
        try:
            return {"type": "string", "pattern": bounded_pattern(pattern, int(least), most)}
        except ValueError as error:
            raise _refusal(f"answers cannot be constrained to {error} in a schema") from None
    if least or most is not None:
        return {"type": "string", "pattern": length_pattern(int(least), most)}
    return {"type": "string"}


def _number(kind: str, schema: Schema) -> Schema:
    """Return the schema of a number; bounds of an integer are whole, multiples within bounds are listed."""
    divisor = schema.get("multipleOf")
    bounds = {key: schema[key] for key in schema if key != "multipleOf"}
    if divisor is not None and (kind == "number" or divisor != 1):
        least, most = _bound(bounds, "minimum"), _bound(bounds, "maximum")
        if least is None and most is None and divisor == int(divisor) <= MAX_DIVISOR:
            return {"type": "integer", "multipleOf": int(divisor)}
        return {"enum": _multiples(kind, divisor, schema, least, most)}
    if kind == "number":
        return {"type": kind, **bounds}
    rounding = {
        "minimum": math.ceil,
        "maximum": math.floor,
        "exclusiveMinimum": math.floor,
        "exclusiveMaximum": math.ceil,
    }
    return {"type": kind} | {key: rounding[key](value) for key, value in bounds.items()}


def _bound(bounds: Schema, name: str) -> Fraction | None:
    """Return the tighter of a bound and its exclusive form."""
    given = [Fraction(bounds[key]) for key in (name, f"exclusive{name.capitalize()}") if key in bounds]
    return (max(given) if name == "minimum" else min(given)) if given else None


def _multiples(kind: str, divisor: float, schema: Schema, least: Fraction | None, most: Fraction | None) -> list[Any]:
    """Return the multiples of `divisor` within bounds; raises InputError if they are too many, none, or rounded."""
    from jsonschema import Draft202012Validator

    step = Fraction(str(divisor))
    if least is None or most is None or (most - least) / step > MAX_MULTIPLES:
        remedy = f"give both minimum and maximum, with at most {MAX_MULTIPLES:,} multiples between them"
        raise _refusal(f"answers cannot be constrained to 'multipleOf' {divisor} without such bounds", remedy)
    exact = (step * factor for factor in range(math.ceil(least / step), math.floor(most / step) + 1))
    values = [int(value) if value.denominator == 1 else float(value) for value in exact]
    values = [value for value in values if kind == "number" or isinstance(value, int)]
    valid = Draft202012Validator({"type": kind, **{key: schema[key] for key in schema if key != "multipleOf"}})
    values = [value for value in values if valid.is_valid(value)]
    multiple = Draft202012Validator({"multipleOf": divisor})
    if not values or not all(multiple.is_valid(value) for value in values):
        raise _refusal(f"no answer, or none without rounding, is within the bounds and a multiple of {divisor}")
    return values
