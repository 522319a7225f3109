"""Whether answers fit a format: whole matches, JSON schemas, and time that no pattern can make more than linear."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trimtab.base.errors import InputError
from trimtab.measurement.format_check import format_checker


def test_format_by_expression_matches_the_whole_answer(tmp_path: Path) -> None:
    fits = format_checker(r"\d+( days)?", tmp_path)
    assert [fits(text) for text in ("5 days", " 5\n", "about 5", "5 days!")] == [True, True, False, False]
    assert format_checker("", tmp_path)("anything")
    with pytest.raises(InputError, match=r"task\.format.*not a regular expression"):
        format_checker("(", tmp_path)


def test_format_by_json_schema(tmp_path: Path) -> None:
    schema = {"type": "object", "required": ["days"], "properties": {"days": {"type": "integer"}}}
    (tmp_path / "answer.json").write_text(json.dumps(schema))
    fits = format_checker("answer.json", tmp_path)
    texts = ('{"days": 5}', '{"days": "5"}', "{}", "5 days", "[" * 100_000, '{"days": NaN}')
    assert [fits(text) for text in texts] == [True, False, False, False, False, False]


def test_a_schema_that_cannot_be_used_is_refused_and_nothing_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        format_checker("missing.json", tmp_path)
    (tmp_path / "bad.json").write_text('{"type": "objekt"}')
    with pytest.raises(InputError, match=r"bad\.json: not a JSON schema"):
        format_checker("bad.json", tmp_path)
    (tmp_path / "far.json").write_text('{"$ref": "http://127.0.0.1:9/schema.json"}')
    with pytest.raises(InputError, match="leads nowhere"):
        format_checker("far.json", tmp_path)("{}")


def test_no_pattern_backtracks(tmp_path: Path) -> None:
    """Each of these would take longer than the universe is old."""
    answer = "a" * 5000 + "!"
    for pattern in (r"(a+)+", r"(a|a)*", r"(a|aa)+", r"(.*)*x", r"([a-z]+)*\d"):
        assert not format_checker(pattern, tmp_path)(answer)
        (tmp_path / "answer.json").write_text(json.dumps({"properties": {"x": {"pattern": f"^{pattern}$"}}}))
        assert not format_checker("answer.json", tmp_path)(json.dumps({"x": answer}))
    assert format_checker(r"(a+)+!", tmp_path)(answer)


def test_a_pattern_in_a_schema_is_looked_for_anywhere(tmp_path: Path) -> None:
    (tmp_path / "answer.json").write_text(json.dumps({"items": {"pattern": r"\d{2}"}}))
    fits = format_checker("answer.json", tmp_path)
    assert [fits(text) for text in ('["a12b"]', '["a1b"]', "[7]")] == [True, False, True]


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        (r"(?=a)b", "look-around, including look-ahead and look-behind, is not supported"),
        (r"(a)\1", "backreferences are not supported"),
        (r"[a-z&&[^b]]", "Possible set intersection"),
        (r"(((a{1000}){1000}){100})", "exceeds size limit"),
        ("(" * 5000, ""),
    ],
)
def test_what_a_linear_engine_cannot_do_is_refused_at_once(tmp_path: Path, pattern: str, reason: str) -> None:
    with pytest.raises(InputError, match=rf"task\.format: not a regular expression of linear time \(.*{reason}"):
        format_checker(pattern, tmp_path)
    (tmp_path / "answer.json").write_text(json.dumps({"type": "string", "pattern": pattern}))
    with pytest.raises(InputError, match=r"answer\.json: not a JSON schema"):
        format_checker("answer.json", tmp_path)


def test_patterns_of_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "answer.json").write_text(json.dumps({"patternProperties": {"(a+)+$": {"type": "string"}}}))
    with pytest.raises(InputError, match=r"answer\.json: not a JSON schema \(patternProperties is not supported"):
        format_checker("answer.json", tmp_path)


def test_a_schema_that_refers_to_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "answer.json").write_text('{"$ref": "#"}')
    assert not format_checker("answer.json", tmp_path)("{}")
