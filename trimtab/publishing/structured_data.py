"""Checks of JSON-LD: it parses, it is valid for the types that matter, and it says what the page says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trimtab.data.duplicates import normalise_text
from trimtab.publishing.pages import byline_of, dates_in, name_of, parse_time, types_of
from trimtab.publishing.records import SitePage
from trimtab.publishing.site_pages import CrawledPages, Fact, line_of, quoted

_NUMBER = re.compile(r"\d[\d.,'\u2019\u00a0\u202f ]*\d|\d")
_MOST_OBJECTS = 2000  # of one page, those within others counted


def broken(pages: CrawledPages) -> Iterator[Fact]:
    """Find JSON-LD that is no JSON or no object."""
    for page in pages.read:
        scripts = [element for element in page.elements if element.kind == "json-ld"]
        for block in page.broken_json_ld:
            yield (
                page.url,
                quoted(block),
                next((script.line for script in scripts if block.startswith(script.text)), None),
            )


def invalid(pages: CrawledPages) -> Iterator[Fact]:
    """Find objects without a property that their type needs, or with a value of the wrong kind."""
    for page in pages.read:
        for item in _objects(page):
            for kind in types_of(item):
                for rule in _RULES.get(kind, ()):
                    if problem := rule.problem(item):
                        yield page.url, f"{kind}: {problem}", _line(page)
        for item in page.json_ld:
            if not types_of(item) and "@id" not in item:
                yield page.url, f"an object without @type: {quoted(', '.join(item))}", _line(page)


def disagreeing(pages: CrawledPages) -> Iterator[Fact]:
    """Find what JSON-LD says and the visible text does not."""
    for page in pages.read:
        shown = f" {normalise_text(f'{page.title} {page.visible}')} "
        for item in _objects(page):
            for difference in _differences(page, item, shown):
                yield page.url, difference, _line(page)


def types_on(pages: CrawledPages) -> Counter[str]:
    """Count the pages on which each type stands, within other objects too."""
    kinds_of = (dict.fromkeys(kind for item in _objects(page) for kind in types_of(item)) for page in pages.read)
    return Counter(kind for kinds in kinds_of for kind in kinds)


def _differences(page: SitePage, item: Mapping[str, Any], shown: str) -> Iterator[str]:
    kinds = set(types_of(item))
    if kinds & _ARTICLES:
        yield from _article_differences(page, item, shown)
    if kinds & {"Product", "Event", "Course", "Recipe", "HowTo", "SoftwareApplication"}:
        name = item.get("name")
        if isinstance(name, str) and not _stands_in(name, shown):
            yield f"name {quoted(name)} is not on the page"
    if "Question" in kinds:
        answer = item.get("acceptedAnswer")
        text = answer.get("text") if isinstance(answer, dict) else None
        if isinstance(text, str) and not _mostly_in(re.sub(r"<[^>]*>", " ", text), shown):
            yield f"the answer {quoted(text)} is not on the page"
    if kinds & {"Offer", "AggregateOffer"}:
        yield from _price_differences(page, item)
    if kinds & _EVENTS:
        yield from _date_differences(page, item)


def _article_differences(page: SitePage, item: Mapping[str, Any], shown: str) -> Iterator[str]:
    headline, author = item.get("headline"), name_of(item.get("author"))
    if isinstance(headline, str) and not _stands_in(headline, shown):
        yield f"headline {quoted(headline)} is not on the page"
    byline = byline_of(page.visible)
    if author and byline and normalise_text(author) != normalise_text(byline) and not _stands_in(author, shown):
        yield f"author {quoted(author)}, and the page says {quoted(byline)}"


def _price_differences(page: SitePage, item: Mapping[str, Any]) -> Iterator[str]:
    for key in ("price", "lowPrice", "highPrice"):
        price = _amount(str(item[key])) if _is_price(item.get(key)) else None
        if price and price not in _amounts(page.visible):
            yield f"{key} {item[key]} is not on the page"


def _date_differences(page: SitePage, item: Mapping[str, Any]) -> Iterator[str]:
    start = parse_time(item["startDate"]) if isinstance(item.get("startDate"), str) else None
    days = {day.date() for day in dates_in(page.visible)}
    if start is not None and days and start.date() not in days:
        yield f"startDate {item['startDate']}, and the page names {', '.join(sorted(map(str, days))[:3])}"


def _stands_in(words: str, shown: str) -> bool:
    return f" {normalise_text(words)} " in shown


def _mostly_in(words: str, shown: str) -> bool:
    """Return True if four fifths of the words stand in the text, whatever their order."""
    expected = normalise_text(words).split()
    known = set(shown.split())
    return sum(word in known for word in expected) >= 0.8 * len(expected)


def _amounts(text: str) -> set[float]:
    return {
        amount
        for number in _NUMBER.findall(text)
        for part in (number, *number.split())
        if (amount := _amount(part)) is not None
    }


def _amount(written: str) -> float | None:
    """Read a price as a number, with a comma or a point for thousands and decimals."""
    digits = re.sub(r"[^\d.,]", "", written).strip(".,")
    if not digits:
        return None
    whole, *cents = re.split(r"[.,](?=\d{1,2}$)", digits)
    return float(".".join((re.sub(r"[.,]", "", whole), *cents)))


def _objects(page: SitePage) -> Iterator[Mapping[str, Any]]:
    """Walk every object of the page's JSON-LD that has a type, those within others too."""
    waiting: list[Any] = list(page.json_ld)
    seen = 0
    while waiting and seen < _MOST_OBJECTS:
        value = waiting.pop(0)
        seen += 1
        if isinstance(value, dict):
            if types_of(value):
                yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _line(page: SitePage) -> int | None:
    """Return the line of the page's JSON-LD; None for several blocks, as objects do not say which they are of."""
    several = sum(element.kind == "json-ld" for element in page.elements) > 1
    return None if several else line_of(page, "json-ld")


@dataclass(frozen=True, slots=True)
class _Rule:
    """A property of a type and the test of its value; `needed`: True if objects without it are invalid."""

    key: str
    is_right: Callable[[Any], bool]
    expected: str
    needed: bool = True

    def problem(self, item: Mapping[str, Any]) -> str | None:
        """Say what is wrong with the property in an object; None where nothing is."""
        if self.key not in item:
            return f"{self.key} is missing" if self.needed else None
        value = item[self.key]
        return None if self.is_right(value) else f"{self.key} {quoted(str(value))} is no {self.expected}"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_date(value: Any) -> bool:
    is_iso = isinstance(value, str) and bool(re.match(r"\d{4}-\d\d(-\d\d)?(T|$)", value))
    return is_iso and parse_time(value) is not None


def _is_price(value: Any) -> bool:
    return (isinstance(value, int | float) and not isinstance(value, bool)) or (
        isinstance(value, str) and bool(re.fullmatch(r"\d+(\.\d+)?", value.strip()))
    )


def _is_currency(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[A-Z]{3}", value))


def _is_named(value: Any) -> bool:
    return (
        name_of(value) is not None
        or (isinstance(value, dict) and "@id" in value)
        or (isinstance(value, list) and any(map(_is_named, value)))
    )


_ARTICLES = frozenset(("Article", "NewsArticle", "BlogPosting", "TechArticle", "Report", "ScholarlyArticle"))
_EVENTS = frozenset(
    ("Event", "BusinessEvent", "EducationEvent", "Festival", "MusicEvent", "ExhibitionEvent", "TheaterEvent")
)
_NAME = _Rule("name", _is_text, "text")
_ARTICLE = (
    _Rule("headline", _is_text, "text"),
    _Rule("datePublished", _is_date, "ISO 8601 date", needed=False),
    _Rule("dateModified", _is_date, "ISO 8601 date", needed=False),
    _Rule("author", _is_named, "person or organisation with a name", needed=False),
)
# Types and properties by schema.org; what is needed by developers.google.com/search/docs/appearance/structured-data
# (2026-11).
_RULES: Mapping[str, tuple[_Rule, ...]] = {
    **dict.fromkeys(_ARTICLES, _ARTICLE),
    **dict.fromkeys(_EVENTS, (_NAME, _Rule("startDate", _is_date, "ISO 8601 date"))),
    "Product": (_NAME,),
    "Offer": (
        _Rule("price", _is_price, "number", needed=False),
        _Rule("priceCurrency", _is_currency, "code of ISO 4217", needed=False),
    ),
    "FAQPage": (_Rule("mainEntity", bool, "list of questions"),),
    "Question": (_NAME,),
    "BreadcrumbList": (_Rule("itemListElement", bool, "list"),),
    "Organization": (_NAME,),
    "LocalBusiness": (_NAME, _Rule("address", bool, "address")),
    "Person": (_NAME,),
    "HowTo": (_NAME, _Rule("step", bool, "list of steps")),
}
