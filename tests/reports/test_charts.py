"""The charts: well-formed, marks where the values are, labels that keep clear of each other."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trimtab.reports.charts import (
    Box,
    Scale,
    curves,
    dot_whisker,
    icon,
    log_ticks,
    mark_shape,
    place_labels,
    scatter,
    ticks,
)
from trimtab.reports.components import Curves, Dot, Scatter, Series, Whiskers
from trimtab.reports.labels import SHAPES
from trimtab.reports.page import write_report

NAMES = ("prompt", "few-shot", "rag", "lora", "lora+rag", "lora-docs+rag", "nearest-shots", "api-big")
unit = st.floats(0, 1, allow_subnormal=False)


def dot(name: str, x: float, y: float) -> Dot:
    return Dot(label=name, family="tuned", shape="diamond", x=x, y=y, low=max(0, y - 0.05), high=min(1, y + 0.05))


def test_every_svg_of_a_page_is_xml_with_a_title(make_study: Callable[..., Path], tmp_path: Path) -> None:
    page = write_report(make_study(tmp_path, items=40)).read_text(encoding="utf-8")
    drawings = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, flags=re.S)]
    charts = [svg for svg in drawings if svg.get("role") == "img"]
    assert len(charts) == 2 * (1 + 2 + 4)
    for svg in charts:
        assert svg.findtext("{http://www.w3.org/2000/svg}title")


@given(st.lists(st.tuples(st.floats(1e-4, 1e7), unit), min_size=1, max_size=8), st.sampled_from([350, 505]), unit)
def test_scatter_stays_inside_its_drawing(places: list[tuple[float, float]], width: int, target: float) -> None:
    dots = [dot(name, x, y) for name, (x, y) in zip(NAMES, places, strict=False)]
    chart = Scatter(heading="h", title="<t>", x_title="x & y", y_title="y", dots=tuple(dots), target=target, limit=None)
    svg = ElementTree.fromstring(scatter(chart, width).replace(" xmlns=", " x="))
    numbers = [float(one.get(key, "0")) for one in svg.iter("line") for key in ("x1", "x2")]
    assert all(-0.1 <= number <= width + 0.1 for number in numbers)


@given(st.lists(st.tuples(st.floats(60, 440), st.floats(40, 260)), min_size=2, max_size=8))
@example([(183.0, 239.0), (228.0, 229.5)])
@example([(75.0, 75.0), (75.5, 75.0)])
def test_labels_never_overlap(places: list[tuple[float, float]]) -> None:
    inside = Box(46, 18, 505, 284)
    boxes = place_labels(places, NAMES[: len(places)], inside)
    for one, other in combinations(boxes, 2):
        assert one.overlap(other) == 0
    for box in boxes:
        assert inside.left <= box.left
        assert box.right <= inside.right
        assert inside.top <= box.top
        assert box.bottom <= inside.bottom


def test_a_label_does_not_stand_beside_the_mark_of_another() -> None:
    """Marks close together at the foot of a phone's chart: each name lies nearest to its own."""
    places = [(158.9, 113.9), (111.9, 213.3), (192.8, 262.4), (266.5, 263.0), (182.9, 279.0)]
    names = ("lora+rag", "lora", "few-shot", "rag", "prompt")
    stems = [Box(x - 1, y - 56, x + 1, min(284, y + 43)) for x, y in places]
    for box, place in zip(place_labels(places, names, Box(46, 18, 350, 288), stems), places, strict=True):
        assert min(places, key=lambda other: box.distance(*other)) == place


def test_labels_of_coinciding_points_are_apart() -> None:
    boxes = place_labels([(250.0, 150.0)] * 8, NAMES, Box(46, 18, 505, 284))
    assert all(one.overlap(other) == 0 for one, other in combinations(boxes, 2))


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_enclose_the_range_evenly(low: float, span: float) -> None:
    found = ticks(low, low + span)
    tolerance = (abs(low) + span) * 1e-6
    assert found[0] <= low + tolerance
    assert found[-1] >= low + span - tolerance
    assert 2 <= len(found) <= 13
    steps = [b - a for a, b in pairwise(found)]
    assert max(steps) - min(steps) <= tolerance


@given(st.floats(1e-5, 1e8), st.floats(1.0, 1e6))
def test_log_ticks_enclose_the_range(low: float, factor: float) -> None:
    found = log_ticks(low, low * factor)
    assert found[0] <= low * 1.000001
    assert found[-1] >= low * factor * 0.999999
    assert found == sorted(set(found))
    assert len(found) >= 2


def test_a_dot_lies_where_its_value_is() -> None:
    values = ("0.25", "0.75")
    dots = (dot("a", 0, 0.25), dot("b", 0, 0.75))
    chart = Whiskers(title="t", dots=dots, target=0.5, values=values, short_values=values)
    svg = ElementTree.fromstring(dot_whisker(chart, 800).replace(" xmlns=", " x="))
    target = next(float(one.get("x1", "")) for one in svg.iter("line") if one.get("class") == "target")
    centres = [float(re.findall(r"M([\d.]+)", path.get("d", ""))[0]) for path in svg.iter("path")]
    assert centres[0] < target < centres[1]
    assert target - centres[0] == pytest.approx(centres[1] - target, abs=0.2)


def test_a_long_loss_curve_is_thinned() -> None:
    points = tuple((float(step), 1 / (step + 1)) for step in range(20_000))
    series = (Series(name="loss", style="train", points=points),)
    svg = curves(Curves(title="t", y_title="loss", series=series), 500)
    assert len(svg) < 10_000


def test_a_curve_fills_its_width_starts_from_zero_and_marks_what_was_kept() -> None:
    line = Series(name="dev", style="tuned", points=((10.0, 0.13), (20.0, 0.14), (41.0, 0.13)), kept_step=20)
    chart = Curves(title="t", y_title="y", series=(line,))
    svg = ElementTree.fromstring(curves(chart, 500).replace(" xmlns=", " x="))
    circles = list(svg.iter("circle"))
    assert [one.get("class") for one in circles] == ["point tuned", "dot tuned", "point tuned"]
    assert float(circles[-1].get("cx", "0")) == pytest.approx(500 - 12)
    assert "0" in [text.text for text in svg.iter("text") if text.get("text-anchor") == "end"]


def test_log_scale_is_linear_in_the_logarithm() -> None:
    scale = Scale(1, 100, 0, 200, log=True)
    assert scale(10) == pytest.approx(100)


def test_every_shape_is_drawn_in_its_own_way_inside_its_icon() -> None:
    marks = {shape: mark_shape(shape, 0, 0, "base") for shape in SHAPES}
    assert len(set(marks.values())) == len(SHAPES)
    for shape in SHAPES:
        path = re.findall(r' d="([^"]+)"', icon(shape, "base"))
        assert all(0 <= float(number) <= 16 for one in path for number in re.findall(r"[\d.]+", one))
