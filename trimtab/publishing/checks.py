"""The checks of what assistants read of a site: one function a check; each finds facts, and no total score is made of
them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise

from trimtab.base.progress import Progress
from trimtab.data.duplicates import normalise_text
from trimtab.measurement.numerals import words
from trimtab.publishing import element_checks  # noqa: F401  (it fills the table, too)
from trimtab.publishing.check_table import CHECKS, SPARSE_WORDS, check, elements_of
from trimtab.publishing.citable import claims_without_source, contradictions, dangling_starts
from trimtab.publishing.pages import canonical_of_header, parse_time
from trimtab.publishing.records import SitePage, SurfaceFinding
from trimtab.publishing.site_pages import (
    CrawledPages,
    Fact,
    forbids_listing,
    line_of,
    plain_address,
    quoted,
    words_of,
)
from trimtab.publishing.structured_data import broken, disagreeing, invalid

DAY = timedelta(days=1, hours=14)  # two dates without zones can be so far apart and mean one day
MOST_INLINE = 2000  # bytes of inline scripts that hardly bring text
SOME_WORDS = 100  # from which on a page is expected to say who wrote it, and when
LEAST_SHARE = 0.25  # of the main text in the visible words


def findings_of(pages: CrawledPages, progress: Progress | None = None) -> tuple[SurfaceFinding, ...]:
    """Run all checks on a site, in the order of the table."""
    findings: list[SurfaceFinding] = []
    for number, site_check in enumerate(CHECKS, start=1):
        findings += site_check.findings(pages)
        if progress is not None:
            progress.emit("check", step=number, of=len(CHECKS), note=site_check.name)
    return tuple(findings)


# ---- can the text be read?


@check(
    "unreadable",
    "blocks",
    "The page cannot be parsed within limits of time and memory.",
    "make the page smaller, or nest its elements less deeply",
)
def _unreadable(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.pages:
        if page.unread is not None and page.status == 200 and page.kind == "html":
            yield page.url, page.unread, None


@check(
    "server-error",
    "blocks",
    "The server answers with an error of its own.",
    "mend the server, or take the address out of links and sitemap",
)
def _server_error(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.pages:
        if page.status >= 500:
            yield page.url, f"answers {page.status}", None


def _missing_text(pages: CrawledPages, low: float, high: float) -> Iterator[Fact]:
    """Find the pages of whose main text a share from `low` to below `high` is missing without scripts."""
    for page in pages.read:
        share = missing_share(page)
        if share is not None and low <= share < high and page.rendered:
            lines = (line for line in page.rendered.split("\n") if line.strip() and line.strip() not in page.visible)
            example = quoted(next(lines, ""))
            yield page.url, f"{share:.0%} of the main text is missing without scripts, such as {example}", None


check(
    "text-by-script",
    "blocks",
    "At least half of the main text is there only after scripts ran, which most assistants' agents do not do.",
    "put the text into the HTML that the server sends",
)(partial(_missing_text, low=0.5, high=1.01))
check(
    "text-partly-by-script",
    "hinders",
    "A tenth to half of the main text is there only after scripts ran.",
    "put the text into the HTML that the server sends",
)(partial(_missing_text, low=0.1, high=0.5))


def missing_share(page: SitePage) -> float | None:
    """Compute the share of the rendered main text's words that the raw HTML lacks; None if it was not rendered."""
    if page.rendered is None:
        return None
    shown, raw = Counter(normalise_text(page.rendered).split()), Counter(normalise_text(page.visible).split())
    total = sum(shown.values())
    return sum((shown - raw).values()) / total if total else 0.0


@check(
    "empty-without-scripts",
    "note",
    "The page has hardly any text and has scripts; no browser has looked whether they bring the text.",
    "look again with --render, which runs the scripts in Chromium",
)
def _empty_without_scripts(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.read:
        if page.rendered is None and page.words < SPARSE_WORDS and _has_scripts(page):
            scripts = f"{page.scripts} external scripts, {page.script_bytes:,} bytes of inline scripts"
            yield page.url, f"{page.words} visible words, {scripts}", None


@check(
    "no-text",
    "hinders",
    "The page has no visible text and no scripts that could bring it.",
    "write text, or take the page away",
)
def _no_text(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.read:
        if not page.words and not _has_scripts(page):
            yield page.url, "no visible text", None


def _has_scripts(page: SitePage) -> bool:
    """True if scripts may bring the text: of a page without any, the shortest one may."""
    return page.scripts > 0 or page.script_bytes > (MOST_INLINE if page.words else 0)


@check(
    "pdf-without-text",
    "blocks",
    "The PDF holds pictures of pages or cannot be read, so that no text can be taken from it.",
    "recognise its text (OCR), or publish the text as a page",
)
def _pdf_without_text(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.pages:
        if page.kind == "pdf" and page.status == 200:
            if page.unread is not None:
                yield page.url, page.unread, None
            elif not page.text:
                yield page.url, "a PDF without text: its pages are pictures", None


@check("page-cut", "hinders", "The page is larger than what is read of one page.", "split the page")
def _page_cut(pages: CrawledPages) -> Iterator[Fact]:
    for answer in pages.site.pages:
        if answer.cut and answer.status == 200:
            yield answer.url, f"more than {len(answer.content):,} bytes", None


# ---- canonical addresses and duplicates


@check(
    "canonical-missing", "note", "The page names no canonical address.", "name its own address by link rel=canonical"
)
def _canonical_missing(pages: CrawledPages) -> Iterator[Fact]:
    if any(page.canonical for page in pages.read):  # a site that uses none has chosen so: told once
        for page in pages.read:
            if page.canonical is None and not forbids_listing(page):
                yield page.url, "no canonical address", None
    elif pages.read:
        yield pages.site.origin, f"none of {len(pages.read):,} pages names a canonical address", None


@check("canonical-conflict", "hinders", "The page names several canonical addresses.", "keep one")
def _canonical_conflict(pages: CrawledPages) -> Iterator[Fact]:
    headers = {answer.url: canonical_of_header(answer) for answer in pages.site.pages}
    for page in pages.read:
        named = [element.text for element in page.elements if element.kind == "canonical"]
        addresses = list(dict.fromkeys(one for one in (*named, headers.get(page.url)) if one))
        if len(addresses) > 1:
            yield page.url, f"canonical addresses {' and '.join(addresses[:3])}", line_of(page, "canonical")


@check(
    "canonical-broken",
    "hinders",
    "The canonical address leads to no page, or to a redirect.",
    "name an address that answers 200",
)
def _canonical_broken(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.read:
        if not page.canonical or not page.canonical.startswith(f"{pages.site.origin}/"):
            continue
        line, target = line_of(page, "canonical"), pages.page(page.canonical)
        if target is None and pages.is_folder:
            yield page.url, f"canonical address {page.canonical}, where no page is", line
        elif target is not None and target.status >= 400:
            yield page.url, f"canonical address {page.canonical} answers {target.status}", line
        elif goal := pages.redirected.get(plain_address(page.canonical)):
            yield page.url, f"canonical address {page.canonical} leads on to {goal}", line


def _pages_named_as_canonical(pages: CrawledPages) -> Iterator[tuple[SitePage, SitePage]]:
    """Yield each page whose canonical address is another page of the site, with that page."""
    for page in pages.read:
        if page.canonical and not pages.same(page.canonical, page.url):
            target = pages.page(page.canonical)
            if target is not None and target.status == 200:
                yield page, target


@check(
    "canonical-chain",
    "hinders",
    "The canonical address has another canonical address.",
    "name the last address of the chain",
)
def _canonical_chain(pages: CrawledPages) -> Iterator[Fact]:
    for page, target in _pages_named_as_canonical(pages):
        if target.canonical and not pages.same(target.canonical, target.url):
            evidence = f"canonical address {page.canonical}, whose own is {target.canonical}"
            yield page.url, evidence, line_of(page, "canonical")


@check(
    "canonical-elsewhere",
    "hinders",
    "The canonical address is a page with another text, so that this one may not be listed.",
    "name the page's own address",
)
def _canonical_elsewhere(pages: CrawledPages) -> Iterator[Fact]:
    alike = {frozenset((first.url, second.url)) for first, second, _ in pages.alike}
    for page, target in _pages_named_as_canonical(pages):
        page_words, target_words = set(normalise_text(page.text).split()), set(normalise_text(target.text).split())
        is_other = len(page_words & target_words) < 0.6 * len(page_words)
        if is_other and frozenset((page.url, target.url)) not in alike:
            evidence = f"canonical address {page.canonical}, which says something else"
            yield page.url, evidence, line_of(page, "canonical")


def _duplicates(pages: CrawledPages, *, near: bool) -> Iterator[Fact]:
    for first, second, pair in pages.alike:
        is_settled = pages.same(first.canonical or first.url, second.canonical or second.url)
        if is_settled or forbids_listing(first) or forbids_listing(second) or (pair.kind == "near") != near:
            continue
        likeness = f"{pair.similarity:.0%} the same as" if near else "the same main text as"
        yield second.url, f"{likeness} {first.url}", None


check(
    "duplicate",
    "hinders",
    "Two addresses have the same main text, and none is named as canonical for both.",
    "name one as canonical, or redirect the other there",
)(partial(_duplicates, near=False))
check(
    "near-duplicate",
    "note",
    "Two addresses have nearly the same main text (Jaccard similarity of at least 0.8).",
    "join them, or say on each what only it is about",
)(partial(_duplicates, near=True))


# ---- links and sitemaps


@check("orphan", "hinders", "No page links to this one.", "link to it from a page on the same subject")
def _orphan(pages: CrawledPages) -> Iterator[Fact]:
    if len(pages.pages) == 1:
        return
    home = plain_address(f"{pages.site.origin}/")
    for page in (*pages.read, *(page for page in pages.pages if page.kind == "pdf" and page.status == 200)):
        if page.url not in pages.links_to and plain_address(page.url) != home:
            listing = "in the sitemap only" if page.url in pages.in_sitemap else "and in no sitemap"
            yield page.url, f"no page links here; {listing}", None


_UNANSWERED = ("redirects", "no answer", "no whole answer", "no byte", "has no valid certificate")  # of `Unfetched.why`
_REFUSED = (401, 403, 429)  # told by who may read the site


@check("broken-link", "hinders", "A link leads to an error.", "mend or remove the link, or redirect its address")
def _broken_link(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.pages:
        sources = pages.links_to.get(page.url, ())
        if page.status >= 400 and page.status not in _REFUSED and sources:
            more = f"; {len(sources):,} pages do" if len(sources) > 1 else ""
            asked = next((one for one, led in pages.site.redirects.items() if led.path[-1] == page.url), None)
            linked = page.url if asked is None else f"{asked}, which redirects to {page.url}"
            yield sources[0], f"links to {linked}, which answers {page.status}{more}", None
    for address in pages.site.unfetched:
        if address.why.startswith(_UNANSWERED):
            for source in [one for one, targets in pages.site.links.items() if address.url in targets][:1]:
                yield source, f"links to {address.url}, which {address.why}", None


@check("sitemap-missing", "note", "There is no sitemap, or it names no page.", "publish one, and name it in robots.txt")
def _sitemap_missing(pages: CrawledPages) -> Iterator[Fact]:
    if not pages.site.entries:
        sitemaps = ", ".join(answer.url for answer in pages.site.sitemaps)
        yield pages.site.origin, f"{sitemaps} names no page" if sitemaps else "no sitemap was found", None


@check(
    "sitemap-undated",
    "note",
    "The sitemap does not say when pages were changed.",
    "give lastmod, from the change of the content",
)
def _sitemap_undated(pages: CrawledPages) -> Iterator[Fact]:
    by_sitemap: dict[str, list[str]] = defaultdict(list)
    for entry in pages.site.entries:
        if entry.lastmod is None or parse_time(entry.lastmod) is None:
            by_sitemap[entry.sitemap].append(entry.url)
    for sitemap, urls in by_sitemap.items():
        yield sitemap, f"{len(urls):,} pages without a date of change, such as {urls[0]}", None


@check(
    "sitemap-same-date",
    "note",
    "The sitemap dates all pages the same, as builds do, so that the dates say nothing.",
    "give lastmod from the change of the content, not of the build",
)
def _sitemap_same_date(pages: CrawledPages) -> Iterator[Fact]:
    dates = Counter(entry.lastmod for entry in pages.site.entries if entry.lastmod)
    if sum(dates.values()) >= 10 and len(dates) == 1:
        (date,) = dates
        yield pages.site.entries[0].sitemap, f"all {dates[date]:,} pages are dated {date}", None


@check(
    "sitemap-wrong",
    "hinders",
    "The sitemap names an address that is an error, a redirect, on another host, or names another as canonical; or it "
    "gives a date that is still to come.",
    "take the address out, or mend the page",
)
def _sitemap_wrong(pages: CrawledPages) -> Iterator[Fact]:
    for entry in pages.site.entries:
        page, dated = pages.page(entry.url), parse_time(entry.lastmod or "")
        if dated is not None and dated > pages.site.when + DAY:
            yield entry.sitemap, f"dates {entry.url} {entry.lastmod}, which is still to come", None
        if not entry.url.startswith(f"{pages.site.origin}/") and not pages.is_folder:
            yield entry.sitemap, f"names {entry.url}, which is on another host", None
        elif page is None:
            if pages.is_folder:
                yield entry.sitemap, f"names {entry.url}, where no page is", None
        elif page.status >= 400:
            yield entry.sitemap, f"names {entry.url}, which answers {page.status}", None
        elif plain_address(entry.url) in pages.redirected:
            yield entry.sitemap, f"names {entry.url}, which leads on to {page.url}", None
        elif page.canonical and not pages.same(page.canonical, page.url):
            yield entry.sitemap, f"names {entry.url}, whose canonical address is {page.canonical}", None


@check("sitemap-incomplete", "hinders", "The page is in no sitemap, though others are.", "add it to the sitemap")
def _sitemap_incomplete(pages: CrawledPages) -> Iterator[Fact]:
    if pages.site.entries:
        for page in pages.listed:
            if page.url not in pages.in_sitemap:
                yield page.url, "in no sitemap", None


# ---- titles and headings

_NO_TITLES = frozenset(("untitled", "document", "untitled document", "new page", "index", "title"))


@check(
    "title-missing",
    "hinders",
    "The page has no title, or one that says nothing.",
    "give the page a title that names its subject",
)
def _title_missing(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.read:
        if page.title.lower() in _NO_TITLES or not page.title:
            yield page.url, f"title {quoted(page.title)}" if page.title else "no title", line_of(page, "title")


@check(
    "title-repeated", "hinders", "Another page has the same title.", "name in the title what only this page is about"
)
def _title_repeated(pages: CrawledPages) -> Iterator[Fact]:
    by_title: dict[str, list[SitePage]] = defaultdict(list)
    for page in pages.listed:
        if page.title and page.title.lower() not in _NO_TITLES:
            by_title[page.title].append(page)
    for title, (first, *others) in by_title.items():
        for page in others:
            yield page.url, f"title {quoted(title)} as on {first.url}", line_of(page, "title")


@check("h1-missing", "note", "The page has no heading of level 1.", "make its main heading an h1")
def _h1_missing(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.read:
        if not any(heading.level == 1 and heading.text for heading in page.headings):
            yield page.url, "no heading of level 1", None


@check("h1-repeated", "note", "The page has several headings of level 1.", "keep one, and make the others h2")
def _h1_repeated(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.read:
        tops = [heading for heading in page.headings if heading.level == 1 and heading.text]
        if len(tops) > 1:
            texts = quoted(" / ".join(heading.text for heading in tops))
            yield page.url, f"{len(tops)} headings of level 1: {texts}", tops[1].line


@check(
    "heading-skipped", "note", "A heading skips a level, so that what it belongs to is not told.", "use the next level"
)
def _heading_skipped(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.read:
        for above, heading in pairwise(page.headings):
            if heading.level > above.level + 1:
                evidence = f"level {heading.level} after level {above.level}: {quoted(heading.text)}"
                yield page.url, evidence, heading.line
                break


# ---- dates, authors and languages


@check(
    "dates-disagree",
    "hinders",
    "Dates of one page differ by more than a day: visible, JSON-LD, meta, sitemap; Last-Modified where it is "
    "before them.",
    "give one date everywhere: that on which the content was changed",
)
def _dates_disagree(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.read:
        for kind in ("published", "modified"):
            dates = _stated_dates(page, pages, kind)
            past = [when for _, _, when in dates if when <= pages.site.when]
            if kind == "modified" and past:
                # A server's date is often that of the last deployment: wrong only where it lies before the change.
                dates += [
                    (date.place, date.written, date.when)
                    for date in page.dates
                    if date.place == "last-modified" and date.when is not None and date.when < max(past) - DAY
                ]
            times = [when for _, _, when in dates]
            if times and max(times) - min(times) > DAY:
                yield page.url, f"{kind}: {'; '.join(f'{place} {written}' for place, written, _ in dates)}", None


def _stated_dates(page: SitePage, pages: CrawledPages, kind: str) -> list[tuple[str, str, datetime]]:
    """List the dates of a kind that the page or a sitemap gives: where, as written, as a time."""
    dates = [
        (date.place, date.written, date.when)
        for date in page.dates
        if date.kind == kind and date.when is not None and date.place != "last-modified"
    ]
    if kind == "modified" and page.url in pages.entry_dates:
        dates.append(pages.entry_dates[page.url])
    return dates


@check(
    "date-impossible",
    "hinders",
    "A date lies in the future, or a page was changed before it was published.",
    "correct the date",
)
def _date_impossible(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.read:
        stated = [(date, date.when) for date in page.dates if date.place != "last-modified" and date.when is not None]
        late = next((date for date, when in stated if when > pages.site.when + DAY), None)
        if late is not None:
            yield page.url, f"{late.place} {late.kind} {late.written}, which is still to come", None
            continue
        for first, published in stated:
            for second, modified in stated:
                is_pair = (first.kind, second.kind) == ("published", "modified") and first.place == second.place
                if is_pair and modified < published - DAY:
                    before = f"before it was published {first.written}"
                    yield page.url, f"{first.place}: modified {second.written}, {before}", None


@check(
    "date-missing",
    "note",
    "A page of a hundred words or more does not say when it was written or changed.",
    "show the date of the last change, and give it as dateModified",
)
def _date_missing(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.listed:
        has_date = any(date.place in ("visible", "json-ld", "meta") for date in page.dates)
        if words_of(page.text) >= SOME_WORDS and not has_date:
            yield page.url, f"{words_of(page.text):,} words and no date", None


@check(
    "author-missing",
    "note",
    "A page of a hundred words or more does not say who wrote it.",
    "name the author, or the body that answers for it",
)
def _author_missing(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.listed:
        if words_of(page.text) >= SOME_WORDS and page.author is None:
            yield page.url, f"{words_of(page.text):,} words and no author", None


@check(
    "language-missing",
    "note",
    "The page does not say in which language it is.",
    "give the html element a lang attribute",
)
def _language_missing(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.read:
        if page.language is None:
            yield page.url, "no lang attribute", None


@check(
    "language-wrong",
    "hinders",
    "The page's language is not the one that it states (English, German, French, Spanish, Italian and Dutch are "
    "told apart).",
    "correct the lang attribute",
)
def _language_wrong(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.read:
        stated, spoken = (page.language or "").lower()[:2], language_of(page.text)
        if spoken and stated in _FUNCTION_WORDS and spoken != stated:
            yield page.url, f"lang={quoted(page.language or '')}, and the text reads as {spoken}", None


def language_of(text: str) -> str | None:
    """Tell the language of a text by its function words; None for short texts and where no language stands out."""
    tokens = re.findall(r"[^\W\d_]+", text.lower())
    if len(tokens) < 60:
        return None
    counts = sorted(
        ((sum(token in known for token in tokens), name) for name, known in _FUNCTION_WORDS.items()), reverse=True
    )
    (most, name), (second, _) = counts[:2]
    return name if most >= 0.1 * len(tokens) and most >= 2 * second else None


_FUNCTION_WORDS: Mapping[str, frozenset[str]] = {
    "en": frozenset(words("the and of to is that for with are this on was be by which from it")),
    "de": frozenset(words("der die und das ist nicht ein eine mit den von zu im auf für sich auch werden")),
    "fr": frozenset(words("le la les et des est dans une pour que qui sur du au pas sont avec ce")),
    "es": frozenset(words("el los las y del que en una para es con por se su como más está")),
    "it": frozenset(words("il gli che di è per una con non sono della del nel anche alla dei le si")),
    "nl": frozenset(words("het een van en is dat op te zijn met voor niet aan er om de ook naar")),
}


# ---- JSON-LD

check(
    "json-ld-broken",
    "hinders",
    "A block of JSON-LD is no JSON, or no object.",
    "correct it; a trailing comma and unescaped quotation marks are frequent causes",
)(broken)
check(
    "json-ld-invalid",
    "hinders",
    "An object of JSON-LD lacks a property without which its type says nothing, or has a value of the wrong kind.",
    "add or correct the property, as schema.org describes the type",
)(invalid)
check(
    "json-ld-disagrees",
    "hinders",
    "JSON-LD says what the page does not say: a name, an author, a price, an answer or the date of an event.",
    "correct whichever is wrong",
)(disagreeing)


# ---- lists, tables and images


check("list-as-text", "note", "A list is drawn with characters instead of list elements.", "use ul or ol with li")(
    partial(elements_of, kind="typed-list")
)
check(
    "table-as-text",
    "note",
    "A table is drawn with characters instead of a table element.",
    "use table with th for its heads",
)(partial(elements_of, kind="typed-table"))
check(
    "table-without-head",
    "note",
    "A table has no head cells, so that a cell alone does not say what it is.",
    "make its heads th",
)(partial(elements_of, kind="table-without-head"))


_HOLDS_TEXT = re.compile(
    r"price|table|menu|hours|timetable|schedule|tariff|fees?\b|rates|chart|infographic|flyer|poster|notice"
    r"|announcement|opening|specs?\b|scan|leaflet|brochure|preis|oeffnung|fahrplan|horaire|tarif|horario",
    re.I,
)
_NO_CONTENT = re.compile("icon|logo|badge|avatar", re.I)
_LEAST_ALT = 4  # words that can say what a table or a notice says


@check(
    "text-in-image",
    "hinders",
    "An image seems to hold text that is not on the page: by its name, or as there is hardly any other text; "
    "nobody looked into it.",
    "write its text on the page, or in alt",
)
def _text_in_image(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.read:
        sparse = words_of(page.text) < SPARSE_WORDS and not page.scripts
        for image in page.elements:
            if image.kind not in ("image", "image-without-alt"):
                continue
            source, _, alt = image.text.partition(" ")
            name = source.rpartition("/")[2]
            if words_of(alt) < _LEAST_ALT and (sparse or _HOLDS_TEXT.search(name)) and not _NO_CONTENT.search(source):
                label = f"alt {quoted(alt)}" if alt else "no alternative text"
                around = f", on a page of {words_of(page.text)} words" if sparse else ""
                yield page.url, f"{name} with {label}{around}", image.line


@check(
    "image-without-alt",
    "note",
    "Images of the main content have no alt attribute.",
    "say in alt what they show; leave it empty for decoration",
)
def _image_without_alt(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.read:
        images = [element for element in page.elements if element.kind == "image-without-alt"]
        if images:
            yield page.url, f"{len(images)} images without alt, such as {images[0].text}", images[0].line


# ---- main text and what can be cited of it


@check(
    "main-text-share",
    "note",
    "Less than a quarter of the visible words are main text.",
    "move what is repeated on every page out of it, or write more of what only it says",
)
def _main_text_share(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.read:
        main = words_of(page.text)
        if page.words >= SOME_WORDS and main < LEAST_SHARE * page.words:
            yield page.url, f"{main:,} of {page.words:,} visible words are main text", None


check(
    "dangling-start",
    "hinders",
    "A passage begins with a word for something that neither it nor its heading names.",
    "name the subject in the passage's first sentence, or give it a heading that does",
)(dangling_starts)
check(
    "claim-without-source",
    "note",
    "A figure is said to come from studies, surveys or experts, or is a share of people, and no source stands beside "
    "it.",
    "name the source beside the figure, and link to it",
)(claims_without_source)
check(
    "contradiction",
    "hinders",
    "Two pages state different values of the same thing.",
    "find out which is right, and correct the other",
)(contradictions)
