"""Parquet values that Python has no value for are refused on one line with row and column; all others are read."""

from __future__ import annotations

import datetime
import decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from trimtab.base.errors import InputError
from trimtab.data.readers import read_raw_rows

FAR = pyarrow.array([0, 2**62])
FAR_32 = pyarrow.array([0, 2**30], pyarrow.int32())
FAR_TIMES = FAR.view(pyarrow.timestamp("us"))


@pytest.mark.parametrize(
    ("column", "row"),
    [
        (FAR_TIMES, 2),
        (pyarrow.array([0, -(2**62)]).view(pyarrow.timestamp("us")), 2),
        (FAR.view(pyarrow.timestamp("us", tz="UTC")), 2),
        (FAR.view(pyarrow.duration("s")), 2),
        (FAR.view(pyarrow.time64("us")), 2),
        (FAR_32.view(pyarrow.date32()), 2),
        (pyarrow.array([0, -800_000], pyarrow.int32()).view(pyarrow.date32()), 2),  # before the year 1
        (FAR_TIMES.dictionary_encode(), 2),
        (pyarrow.ListArray.from_arrays([0, 1, 2], FAR_TIMES), 2),
        (pyarrow.StructArray.from_arrays([FAR_TIMES], ["z"]), 2),
        (pyarrow.MapArray.from_arrays([0, 1, 2], ["a", "b"], FAR_TIMES), 2),
        (pyarrow.array([1, 2], pyarrow.timestamp("us", tz="Mars/Phobos")), 1),
        (pyarrow.array([1, 2], pyarrow.timestamp("us", tz="../../etc/passwd")), 1),
        (pyarrow.array([1, 2], pyarrow.timestamp("us", tz="+99:99")), 1),
        (pyarrow.array([1, 2], pyarrow.timestamp("us", tz="a\nb")), 1),
        (pyarrow.array([b"a", b"\xff"]).view(pyarrow.string()), 2),
    ],
    ids=lambda value: " ".join(str(value.type).split()) if isinstance(value, pyarrow.Array) else "",
)
def test_a_value_that_cannot_be_read_is_refused_with_its_row_and_column(tmp_path: Path, column: Any, row: int) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"question": ["q", "r"], "when": column}), path)
    with pytest.raises(InputError) as caught:
        list(read_raw_rows(path))
    error = caught.value
    assert (error.file, error.line, error.field) == (str(path), row, "when")
    assert str(error).isprintable()
    assert error.remedy == "write the column as text, or leave it out"


def test_dates_durations_decimals_and_nested_types_are_read(tmp_path: Path) -> None:
    days = pyarrow.array([-719_162, 2_932_896], pyarrow.int32())  # the years 1 and 9999
    number = decimal.Decimal("-1.50")
    table = pyarrow.table(
        {
            "date": days.view(pyarrow.date32()),
            "zone": pyarrow.array([0, 1], pyarrow.timestamp("us", tz="Europe/Berlin")),
            "duration": pyarrow.array([-1, 1], pyarrow.duration("us")),
            "decimal": pyarrow.array([number, None], pyarrow.decimal128(38, 2)),
            "wide": pyarrow.array([number, None], pyarrow.decimal256(76, 2)),
            "maps": pyarrow.array(
                [[("k", [("a", 1)])], []],
                pyarrow.map_(pyarrow.string(), pyarrow.map_(pyarrow.string(), pyarrow.int64())),
            ),
            "coded": pyarrow.StructArray.from_arrays([pyarrow.array(["a", "b"]).dictionary_encode()], ["z"]),
            "nanoseconds": pyarrow.array([-1, 2**62], pyarrow.timestamp("ns")),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    rows = [row.fields for row in read_raw_rows(tmp_path / "a.parquet")]
    assert rows == table.to_pylist()
    assert [row["date"] for row in rows] == [datetime.date.min, datetime.date.max]
