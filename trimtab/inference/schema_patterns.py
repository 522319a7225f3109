"""Regular expressions of JSON schemas: bounds on their length, and property names other than some."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeAlias

_Tree: TypeAlias = dict[str, "_Tree"]  # names by their characters; "" marks the end of one
CHARACTER = r'[^"\\\u0000-\u001f]'  # a character of a JSON string that is not escaped
_CLASS = r"\[\^?(?:\\.|[^\]\\])+\]"
_COUNT = r"(?:[*+?]|\{\d+(?:,\d*)?\})\??"
_ATOM = re.compile(rf"({_CLASS}|\\[dDsSwW]|\\[^A-Za-z0-9]|[^\\^$()|*+?{{}}\[\]])({_COUNT})?")
_ESCAPED = (
    r'(?:["\x00-\x1f]|\\["\\nrtfv0]|\\(?:x|u00)(?:[01][0-9a-fA-F]|22|5[cC]))'  # what JSON escapes, in an expression
)


def length_pattern(least: int, most: int | None) -> str:
    """Return the pattern of a string of `least` to `most` characters."""
    return f"^{CHARACTER}{{{least},{'' if most is None else int(most)}}}$"


def bounded_pattern(pattern: str, least: int, most: int | None) -> str:
    """Return a pattern whose strings are those of `pattern` with `least` to `most` characters.

    Raises ValueError saying what the pattern must not have: a character that JSON escapes, or a length that cannot be
    read off it.
    """
    outside = re.sub(_CLASS, lambda match: "" if _has_plain_character(match[0]) else '"', pattern)
    if re.search(_ESCAPED, outside):
        raise ValueError("a pattern with quotes, backslashes or control characters")
    if not least and most is None:
        return pattern
    atoms = _atoms(pattern)
    if atoms is None:
        raise ValueError("a length beside a 'pattern' that is not a plain sequence")
    return _with_length(atoms, least, most)


def _has_plain_character(text: str) -> bool:
    """True if a class of characters has one that JSON does not escape."""
    return text.startswith("[^") or bool(re.sub(_ESCAPED, "", text[1:-1]))


def _atoms(pattern: str) -> list[tuple[str, int, int | None]] | None:
    """Return the parts of a pattern, each a character or class with its least and most repetitions; None if it has
    groups or options.
    """
    rest, atoms = pattern.removeprefix("^").removesuffix("$"), []
    while rest:
        match = _ATOM.match(rest)
        if match is None:
            return None
        atoms.append((match[1], *_repetitions(match[2] or "{1}")))
        rest = rest[match.end() :]
    return atoms


def _repetitions(count: str) -> tuple[int, int | None]:
    """Return the least and the most repetitions; None for no limit."""
    if count[0] != "{":
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[count[0]]
    least, comma, most = count[1 : count.index("}")].partition(",")
    return int(least), (int(most) if most else None) if comma else int(least)


def _with_length(atoms: list[tuple[str, int, int | None]], least: int, most: int | None) -> str:
    """Return the pattern of these parts, of which one at most takes up what the length leaves to it."""
    varying = [number for number, (_, low, high) in enumerate(atoms) if low != high]
    shortest = sum(low for _, low, _ in atoms)
    longest = None if any(high is None for _, _, high in atoms) else sum(high or 0 for _, _, high in atoms)
    is_within = shortest >= least and (most is None or (longest is not None and longest <= most))
    if len(varying) == 1 and not is_within:
        text, low, high = atoms[varying[0]]
        fixed = shortest - low
        limits = [limit for limit in (high, None if most is None else int(most) - fixed) if limit is not None]
        low, high = max(low, least - fixed), min(limits, default=None)
        is_within = high is None or low <= high
        atoms = [(text, low, high) if number == varying[0] else atom for number, atom in enumerate(atoms)]
    if not is_within:
        raise ValueError("a length beside a 'pattern' that leaves it to several parts")
    written = (f"{text}{{{low},{'' if high is None else high}}}" for text, low, high in atoms)
    return f"^{''.join(written)}$"


def names_except(names: Iterable[str]) -> str:
    """Return the pattern of all strings without escapes but these: JSON may spell a name twice, once with escapes."""
    tree: _Tree = {}
    for name in names:
        if re.search(r'["\\\x00-\x1f]', name):
            continue  # it is never spelled without escapes
        node = tree
        for character in name:
            node = node.setdefault(character, {})
        node[""] = {}
    return f"^{_rest_except(tree)}$"


def _rest_except(node: _Tree) -> str:
    """Return the expression of the rests of strings that lead away from the names below `node`."""
    if not node:
        return f"{CHARACTER}*"
    listed = "".join(_literal(character) for character in node if character)
    options = [f"{CHARACTER[:-1]}{listed}]{CHARACTER}*"]
    options += [f"{_literal(character)}{_rest_except(below)}" for character, below in node.items() if character]
    return f"(?:{'|'.join(options)}{'' if '' in node else '|'})"


def _literal(character: str) -> str:
    """Return a character as an expression, within a class or outside."""
    return character if character.isalnum() or ord(character) > 127 else f"\\u{ord(character):04x}"
