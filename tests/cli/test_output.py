"""JSON values of every kind of result."""

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from trimtab.cli.output import to_plain

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_json_values_stay_as_they_are(value):
    plain = to_plain(value)
    assert plain == value
    assert json.loads(json.dumps(plain, allow_nan=False)) == json.loads(json.dumps(value))


@dataclass(frozen=True)
class Inner:
    path: Path
    when: date


@dataclass(frozen=True)
class Outer:
    items: tuple[Inner, ...]
    value: float
    count: np.int64


class Table(BaseModel):
    files: tuple[Path, ...]


def test_records_become_objects():
    outer = Outer((Inner(Path("a/b"), date(2026, 11, 1)),), float("nan"), np.int64(3))
    expected = {"items": [{"path": "a/b", "when": "2026-11-01"}], "value": None, "count": 3}
    assert to_plain(outer) == expected
    assert to_plain({"table": Table(files=(Path("x"),)), "f": np.float32(0.5)}) == {"table": {"files": ["x"]}, "f": 0.5}
    assert to_plain([True, np.float64("inf")]) == [True, None]


def test_what_has_no_json_form_is_refused():
    with pytest.raises(TypeError, match="object has no JSON form"):
        to_plain({"x": object()})
