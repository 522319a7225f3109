"""Charts as inline SVG: dots with whiskers, scatter plots whose labels do not overlap, training curves, reliability
diagrams.

Each chart is drawn for a given width in CSS pixels, so that its text keeps its size on a phone; colours are CSS
classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from trimtab.reports.components import Curves, Dot, ReliabilityDiagram, Scatter, Series, Whiskers
from trimtab.reports.formatting import elide_middle
from trimtab.reports.labels import Shape
from trimtab.reports.svg import element, join

# Mean width of a character of a 12 px system font, in px; generous, so that label boxes are rather too large.
CHARACTER_WIDTH = 6.9
WIDE, HALF, NARROW = 1040, 505, 350  # px: the page, half of it, a phone
MOST_POINTS = 160  # of a curve


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in the drawing, in px."""

    left: float
    top: float
    right: float
    bottom: float

    def distance(self, x: float, y: float) -> float:
        """Return the distance of a point from the rectangle, 0 inside."""
        return math.hypot(x - min(max(x, self.left), self.right), y - min(max(y, self.top), self.bottom))

    def overlap(self, other: Box) -> float:
        """Return the area that both rectangles cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return width * height if width > 0 and height > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values to pixels, linearly or logarithmically."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the position of `value`, in px."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        at = math.log(value) if self.log else value
        return self.start + (at - low) / (high - low) * (self.end - self.start)


def chart_svg(chart: Whiskers | Scatter | Curves | ReliabilityDiagram) -> Markup:
    """Draw a chart for a desktop and for a phone; the style sheet shows one of them."""

    def at(width: int) -> Markup:
        match chart:
            case Whiskers():
                return dot_whisker(chart, width)
            case Scatter():
                return scatter(chart, width)
            case Curves():
                return curves(chart, width)
            case ReliabilityDiagram():
                return reliability_diagram(chart, width)

    wide = WIDE if isinstance(chart, Whiskers) else HALF
    return join(element("div", at(wide), class_="wide"), element("div", at(NARROW), class_="narrow"))


def icon(shape: Shape, family: str) -> Markup:
    """Return the mark of an arm for use in text."""
    return element(
        "svg", mark_shape(shape, 8, 8, family), viewBox="0 0 16 16", width=14, height=14, aria_hidden="true",
        class_="icon",
    )  # fmt: skip


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round tick values from at or below `low` to at or above `high`."""
    if high <= low:
        low, high = low - (abs(low) or 1) * 0.1, high + (abs(high) or 1) * 0.1
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    values = [first * step]
    while values[-1] < high - step * 1e-9:
        values.append((first + len(values)) * step)
    return values


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2, 5 times powers of ten that enclose the range; only powers of ten if those are too many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    below = max((tick for tick in every if tick <= low), default=every[0])
    above = min((tick for tick in every if tick >= high), default=every[-1])
    chosen = [tick for tick in every if below <= tick <= above] if above > below else [below, below * 10]
    return chosen if len(chosen) <= 6 else [tick for tick in chosen if tick in (below, above) or _is_power(tick)]


def _is_power(value: float) -> bool:
    return abs(math.log10(value) - round(math.log10(value))) < 1e-9


def tick_text(value: float) -> str:
    """Return the label of a tick, without trailing zeros."""
    text = f"{value:,.10f}".rstrip("0").rstrip(".") if abs(value) < 1 else f"{value:,.4f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text.replace("-", "−")


def text_width(text: str) -> float:
    """Estimate the width of `text` at 12 px, in px."""
    return len(text) * CHARACTER_WIDTH


def mark_shape(shape: Shape, x: float, y: float, family: str, *, strong: bool = False) -> Markup:
    """Return the mark of an arm: circle (instruction), square (shots), diamond (passages), triangle (both)."""
    r = 6.0 if strong else 5.0
    kind = f"dot {family}"
    if shape == "square":
        return element("rect", x=_px(x - r + 0.5), y=_px(y - r + 0.5), width=2 * r - 1, height=2 * r - 1, class_=kind)
    if shape == "diamond":
        d = r + 1.5
        return element("path", d=f"{_path([(x, y - d), (x + d, y), (x, y + d), (x - d, y)])}Z", class_=kind)
    if shape == "triangle":
        w = r + 1
        return element("path", d=f"{_path([(x, y - w), (x + w, y + r), (x - w, y + r)])}Z", class_=kind)
    return element("circle", cx=_px(x), cy=_px(y), r=r, class_=kind)


def dot_whisker(chart: Whiskers, width: int) -> Markup:
    """Draw one row per arm: the score as a dot, its interval as a whisker, the target as a line, the value at the
    right."""
    dots, target, values = chart.dots, chart.target, chart.values if width > 500 else chart.short_values
    longest = 24 if width > 500 else 18
    labels = max((text_width(elide_middle(dot.label, longest)) for dot in dots), default=0) + 16
    right = max((text_width(value) for value in values), default=0) + 16
    top, row = (26, 34)
    height = top + row * len(dots) + 34
    ends = [dot.low for dot in dots] + [dot.high for dot in dots] + ([target] if target is not None else [])
    marks = _clamp_ticks(ticks(min(ends), max(ends), 6 if width > 500 else 3), ends)
    x = Scale(marks[0], marks[-1], labels + 6, width - right - 8)
    base = top + row * len(dots)
    parts = [_vertical_grid(x, marks, top - 6, base)]
    if target is not None:
        parts.append(_vertical(x(target), top - 6, base, "target"))
        parts.append(_centred(f"target {tick_text(target)}", x(target), top - 12, "target-text", width))
    for index, (dot, value) in enumerate(zip(dots, values, strict=True)):
        y = top + row * (index + 0.5)
        emphasis = "strong" if dot.strong else None
        parts.append(
            element(
                "g",
                element("title", dot.title or dot.label),
                element("text", elide_middle(dot.label, longest), x=0, y=_px(y + 4), class_=emphasis),
                _horizontal(y, x(dot.low), x(dot.high), f"whisker {dot.family}"),
                mark_shape(dot.shape, x(dot.y), y, dot.family, strong=dot.strong),
                element("text", value, x=width, y=_px(y + 4), text_anchor="end", class_=emphasis),
            )
        )
    return _svg(chart.title, width, height, parts)


def scatter(chart: Scatter, width: int) -> Markup:
    """Draw score (y) against time or cost (x); a `limit` on x and a `target` on y are dashed lines."""
    dots, target, limit = chart.dots, chart.target, chart.limit
    height = 330
    left, right, top, bottom = 46, 20, 26, 46
    xs = [dot.x for dot in dots] + [dot.x_high for dot in dots if dot.x_high is not None]
    xs += [limit] if limit is not None else []
    log = min(xs) > 0 and max(xs) / min(xs) > 8
    x_marks = log_ticks(min(xs) * 0.85, max(xs) * 1.15) if log else _from_zero(xs, 4 if width > 400 else 3)
    ends = [dot.low for dot in dots] + [dot.high for dot in dots] + ([target] if target is not None else [])
    y_marks = _clamp_ticks(ticks(min(ends), max(ends), 5), ends)
    x = Scale(x_marks[0], x_marks[-1], left, width - right, log)
    y = Scale(y_marks[0], y_marks[-1], height - bottom, top)
    shown = x_marks if len(x_marks) * 44 < width else x_marks[:: 2 if len(x_marks) % 2 else len(x_marks) - 1]
    parts = [_vertical_grid(x, shown, top, height - bottom), _horizontal_grid(y, y_marks, left, width - right)]
    x_title = chart.x_title + (" (log scale)" if log else "")
    parts += _axis_titles(x_title, width - right, height - 8, chart.y_title)
    if target is not None:
        parts.append(_horizontal(y(target), left, width - right, "target"))
    if limit is not None:
        parts.append(_vertical(x(limit), top, height - bottom, "target"))
    places = [(x(dot.x), y(dot.y)) for dot in dots]
    stems = [Box(px - 1, y(dot.high), px + 1, y(dot.low)) for (px, _), dot in zip(places, dots, strict=True)]
    bounds_x = [x(dot.x if dot.x_high is None else dot.x_high) for dot in dots]
    stems += [
        Box(px, py - 5, bound_x + 3, py + 5) for (px, py), bound_x in zip(places, bounds_x, strict=True) if bound_x > px
    ]
    shortened = [replace(dot, label=elide_middle(dot.label)) for dot in dots]
    boxes = place_labels(
        places, [dot.label for dot in shortened], Box(left, top - 8, width, height - bottom + 4), stems
    )
    for dot, (px, py), bound_x, box in zip(shortened, places, bounds_x, boxes, strict=True):
        parts.append(_scatter_mark(dot, px, py, y(dot.low), y(dot.high), bound_x, box))
    return _svg(chart.title, width, height, parts)


def _scatter_mark(dot: Dot, x: float, y: float, low: float, high: float, bound_x: float, box: Box) -> Markup:
    """Draw a mark with its interval, a line to the upper bound of x (`bound_x`), and its label."""
    near_x, near_y = min(max(x, box.left), box.right), min(max(y, box.top), box.bottom)
    far = bool(dot.label) and math.hypot(near_x - x, near_y - y) > 16
    return element(
        "g",
        element("title", dot.title or dot.label),
        _vertical(x, low, high, f"whisker thin {dot.family}"),
        element("path", d=f"M{_px(x)} {_px(y)}H{_px(bound_x)}m0 -4v8", class_=f"whisker bound {dot.family}")
        if bound_x > x
        else None,
        element("line", x1=_px(x), y1=_px(y), x2=_px(near_x), y2=_px(near_y), class_="leader") if far else None,
        mark_shape(dot.shape, x, y, dot.family, strong=dot.strong),
        element(
            "text",
            dot.label,
            x=_px(box.left + 2),
            y=_px(box.bottom - 4),
            class_="strong halo" if dot.strong else "halo",
        )
        if dot.label
        else None,
    )


def place_labels(
    points: Sequence[tuple[float, float]], labels: Sequence[str], drawing: Box, stems: Sequence[Box] = ()
) -> list[Box]:
    """Return a box for each label, near its point, inside the drawing, and with little overlap.

    Greedy: the most crowded point comes first; each label takes the place that overlaps least, then one that is not
    closer to another mark, then the nearest.
    """
    marks = [Box(x - 8, y - 8, x + 8, y + 8) for x, y in points]
    crowd = [sum(math.hypot(x - u, y - v) < 90 for u, v in points) for x, y in points]
    boxes: dict[int, Box] = {}
    for index in sorted(range(len(points)), key=lambda i: (-crowd[i], i)):
        own_point = points[index]

        def cost(candidate: tuple[float, Box], own_point: tuple[float, float] = own_point) -> float:
            distance, box = candidate
            outside = (box.right - box.left) * (box.bottom - box.top) - box.overlap(drawing)
            total = (1000 + 8 * outside if outside > 1e-6 else 0) + distance
            touched = [area for other in boxes.values() if (area := box.overlap(other)) > 0]
            total += sum(1000 + 8 * area for area in touched) + sum(4 * box.overlap(mark) for mark in marks)
            total += sum(box.overlap(stem) for stem in stems)
            reach = box.distance(*own_point) + 4
            return total + sum(60 for point in points if point != own_point and box.distance(*point) < reach)

        boxes[index] = min(_candidates(*own_point, text_width(labels[index]) + 4), key=cost)[1]
    return [boxes[index] for index in range(len(points))]


def _candidates(x: float, y: float, wide: float) -> list[tuple[float, Box]]:
    """Return places for a label around a point, as distance and box."""
    tall, candidates = 17.0, []
    for gap in (9, 20, 34, 50, 68, 90, 116, 146, 180, 220):
        for dx, dy in ((1, 0), (-1, 0), (1, -1), (-1, -1), (1, 1), (-1, 1), (0, -1), (0, 1)):
            left = x + gap if dx > 0 else x - gap - wide if dx < 0 else x - wide / 2
            top = y - tall / 2 + dy * (gap if dx == 0 else gap * 0.8) + (dy * tall / 2 if dx == 0 else 0)
            candidates.append(
                (gap + (3.0 if dx < 0 else 2.0 if dx == 0 else 0.0) + abs(dy), Box(left, top, left + wide, top + tall))
            )
    return candidates


def curves(chart: Curves, width: int) -> Markup:
    """Draw lines over optimizer steps; dev lines have a dot at each measurement."""
    series = chart.series
    height, left, right, top, bottom = 210, 46, 12, 26, 40
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in series for _, y in line.points]
    last = max(4, *xs)
    x_marks = [mark for mark in ticks(0, last, 4 if width > 300 else 3) if mark <= last]
    y_marks = ticks(min(0.0, *ys), max(ys), 4)  # from 0, so that noise does not look like progress
    x = Scale(0, last, left, width - right)
    y = Scale(y_marks[0], y_marks[-1], height - bottom, top)
    parts = [_horizontal_grid(y, y_marks, left, width - right)]
    parts += [_centred(tick_text(mark), x(mark), height - bottom + 17, "tick", width) for mark in x_marks]
    parts += _axis_titles(chart.x_title, width - right, height - 6, chart.y_title)
    for line in series:
        points = _downsample(line.points)
        path = _path([(x(a), y(b)) for a, b in points])
        dots = [
            element("circle", cx=_px(x(a)), cy=_px(y(b)), r=4 if a == line.kept_step else 2.5, class_=_point(line, a))
            for a, b in points
        ]
        drawn = element("path", d=path, class_=f"line {line.style}")
        parts.append(element("g", element("title", line.name), drawn, dots if line.style != "train" else None))
    return _svg(chart.title, width, height, parts)


def reliability_diagram(chart: ReliabilityDiagram, width: int) -> Markup:
    """Draw the accuracy (y) of the answers of each probability bin (x), with their number above; the diagonal is
    perfect calibration."""
    height, left, right, top, bottom = 230, 46, 12, 40, 46
    x, y = Scale(0, 1, left, width - right), Scale(0, 1, height - bottom, top)
    marks = ticks(0, 1, 5)
    parts = [_vertical_grid(x, marks, top, height - bottom), _horizontal_grid(y, marks, left, width - right)]
    parts += _axis_titles("probability of the answer", width - right, height - 8, chart.y_title)
    parts.append(element("line", x1=_px(x(0)), y1=_px(y(0)), x2=_px(x(1)), y2=_px(y(1)), class_="target"))
    path = _path([(x(probability), y(share)) for _, probability, share in chart.bins])
    parts.append(element("path", d=path, class_=f"line {chart.family}") if len(chart.bins) > 1 else Markup())
    for count, probability, share in chart.bins:
        title = element("title", f"{count:,} answers, probability {probability:.2f}, right {share:.2f}")
        dot = element("circle", cx=_px(x(probability)), cy=_px(y(share)), r=4, class_=f"dot {chart.family}")
        parts.append(element("g", title, dot))
        middle_of_bin = (max(1, math.ceil(probability * 10 - 1e-9)) - 0.5) / 10
        parts.append(_centred(f"{count:,}", x(middle_of_bin), top - 8, "tick", width))
    return _svg(chart.title, width, height, parts)


def _point(line: Series, x: float) -> str:
    return f"dot {line.style}" if x == line.kept_step else f"point {line.style}"


def _downsample(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most MOST_POINTS points, as means of equal runs, so that a long curve stays readable and small."""
    if len(points) <= MOST_POINTS:
        return list(points)
    run = math.ceil(len(points) / MOST_POINTS)
    groups = [points[start : start + run] for start in range(0, len(points), run)]
    return [(sum(a for a, _ in group) / len(group), sum(b for _, b in group) / len(group)) for group in groups]


def _clamp_ticks(marks: list[float], values: Sequence[float]) -> list[float]:
    """Clamp ticks to 0 and 1 if no value lies beyond."""
    if min(values) >= 0:
        marks = [max(mark, 0.0) for mark in marks]
    if max(values) <= 1:
        marks = [min(mark, 1.0) for mark in marks]
    return marks


def _from_zero(values: Sequence[float], about: int) -> list[float]:
    return ticks(min(0.0, *values), max(values) * 1.05, about)


def _vertical(x: float, top: float, base: float, kind: str) -> Markup:
    return element("line", x1=_px(x), x2=_px(x), y1=_px(top), y2=_px(base), class_=kind)


def _horizontal(y: float, left: float, right: float, kind: str) -> Markup:
    return element("line", x1=_px(left), x2=_px(right), y1=_px(y), y2=_px(y), class_=kind)


def _axis_titles(x_title: str, right: float, below: float, y_title: str) -> list[Markup]:
    """Draw the title of x, which ends at `right`, and above all that of y."""
    x_element = element("text", x_title, x=_px(right), y=_px(below), text_anchor="end", class_="axis-title")
    return [x_element, element("text", y_title, x=0, y=12, class_="axis-title")]


def _vertical_grid(x: Scale, marks: Sequence[float], top: float, base: float) -> Markup:
    return join(
        [_vertical(x(mark), top, base, "grid") for mark in marks],
        [
            element("text", tick_text(mark), x=_px(x(mark)), y=_px(base + 17), text_anchor="middle", class_="tick")
            for mark in marks
        ],
    )


def _horizontal_grid(y: Scale, marks: Sequence[float], left: float, right: float) -> Markup:
    return join(
        [_horizontal(y(mark), left, right, "grid") for mark in marks],
        [
            element("text", tick_text(mark), x=_px(left - 8), y=_px(y(mark) + 4), text_anchor="end", class_="tick")
            for mark in marks
        ],
    )


def _centred(text: str, x: float, y: float, kind: str, width: float) -> Markup:
    """Draw a text centred at `x`, moved if it would be cut off at the edge."""
    half = text_width(text) / 2
    return element("text", text, x=_px(min(max(x, half), width - half)), y=_px(y), text_anchor="middle", class_=kind)


def _svg(title: str, width: float, height: float, parts: Sequence[Markup]) -> Markup:
    return element(
        "svg", element("title", title), parts, viewBox=f"0 0 {width:g} {height:g}",
        width=f"{width:g}", height=f"{height:g}",
        role="img", xmlns="http://www.w3.org/2000/svg",
    )  # fmt: skip


def _path(points: Sequence[tuple[float, float]]) -> str:
    """Return the line through the points, as SVG writes it."""
    return "M" + "L".join(f"{_px(x)} {_px(y)}" for x, y in points)


def _px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
