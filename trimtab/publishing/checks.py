"""The checks of what assistants read of a site: one function a check, in a table; each finds facts, and no total
score is made of them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta

from trimtab.base.progress import Progress
from trimtab.data.duplicates import normalise_text
from trimtab.publishing.citable import claims_without_source, contradictions, dangling_starts
from trimtab.publishing.pages import moment_of
from trimtab.publishing.records import SitePage, SurfaceFinding
from trimtab.publishing.site_pages import (
    Check,
    CrawledPages,
    Found,
    forbids_listing,
    line_of,
    plain_address,
    quoted,
    words_of,
)
from trimtab.publishing.structured_data import broken, disagreeing, invalid

DAY = timedelta(days=1, hours=14)  # two dates without zones can be so far apart and mean one day
SPARSE_WORDS = 50  # of a page with fewer words a browser may show much more
SOME_WORDS = 100  # from which on a page is expected to say who wrote it, and when
LEAST_SHARE = 0.25  # of the main text in the visible words


def _unreadable(pages: CrawledPages) -> Iterator[Found]:
    for page in pages.pages:
        if page.unread is not None and page.status == 200 and page.kind == "html":
            yield page.url, page.unread, None


def _cut(pages: CrawledPages) -> Iterator[Found]:
    for one in pages.site.pages:
        if one.cut and one.status == 200:
            yield one.url, f"more than {len(one.content):,} bytes", None


def missing_share(page: SitePage) -> float | None:
    """Compute the share of the words of the rendered main text that the raw HTML lacks; None for a page that was not
    rendered."""
    if page.rendered is None:
        return None
    shown, raw = Counter(normalise_text(page.rendered).split()), Counter(normalise_text(page.visible).split())
    total = sum(shown.values())
    return sum((shown - raw).values()) / total if total else 0.0


def _text_by_script(low: float, high: float) -> Callable[[CrawledPages], Iterator[Found]]:
    def find(pages: CrawledPages) -> Iterator[Found]:
        for page in pages.read:
            share = missing_share(page)
            if share is not None and low <= share < high and page.rendered:
                lacking = next(
                    (line for line in page.rendered.split("\n") if line.strip() and line.strip() not in page.visible),
                    "",
                )
                yield (
                    page.url,
                    f"{share:.0%} of the main text is missing without scripts, such as {quoted(lacking)}",
                    None,
                )

    return find


def _empty_without_scripts(pages: CrawledPages) -> Iterator[Found]:
    for page in pages.read:
        if page.rendered is None and page.words < SPARSE_WORDS and (page.scripts or page.script_bytes > 2000):
            evidence = (
                f"{page.words} visible words, {page.scripts} external scripts, {page.script_bytes:,} bytes of inline "
                "scripts"
            )
            yield page.url, evidence, None


def _canonical_missing(pages: CrawledPages) -> Iterator[Found]:
    if any(page.canonical for page in pages.read):  # a site that uses none has chosen so: told once
        for page in pages.read:
            if page.canonical is None and not forbids_listing(page):
                yield page.url, "no canonical address", None
    elif pages.read:
        yield pages.site.origin, f"none of {len(pages.read):,} pages names a canonical address", None


def _canonical_conflict(pages: CrawledPages) -> Iterator[Found]:
    for page in pages.read:
        named = list(dict.fromkeys(one.text for one in page.elements if one.kind == "canonical"))
        if len(named) > 1:
            yield page.url, f"canonical addresses {' and '.join(named[:3])}", line_of(page, "canonical")


def _canonical_broken(pages: CrawledPages) -> Iterator[Found]:
    for page in pages.read:
        if not page.canonical or not page.canonical.startswith(f"{pages.site.origin}/"):
            continue
        target = pages.page(page.canonical)
        if target is None and pages.is_folder:
            yield page.url, f"canonical address {page.canonical}, where no page is", line_of(page, "canonical")
        elif target is not None and target.status >= 400:
            yield page.url, f"canonical address {page.canonical} answers {target.status}", line_of(page, "canonical")
        elif plain_address(page.canonical) in pages.redirected:
            to = pages.redirected[plain_address(page.canonical)]
            yield page.url, f"canonical address {page.canonical} leads on to {to}", line_of(page, "canonical")


def _canonical_chain(pages: CrawledPages) -> Iterator[Found]:
    for page in pages.read:
        if not page.canonical or pages.same(page.canonical, page.url):
            continue
        target = pages.page(page.canonical)
        if target and target.status == 200 and target.canonical and not pages.same(target.canonical, target.url):
            evidence = f"canonical address {page.canonical}, whose own is {target.canonical}"
            yield page.url, evidence, line_of(page, "canonical")


def _canonical_elsewhere(pages: CrawledPages) -> Iterator[Found]:
    alike = {frozenset((a.url, b.url)) for a, b, _ in pages.alike}
    for page in pages.read:
        if not page.canonical or pages.same(page.canonical, page.url):
            continue
        target = pages.page(page.canonical)
        if target is None or target.status != 200 or frozenset((page.url, target.url)) in alike:
            continue
        own, other = set(normalise_text(page.text).split()), set(normalise_text(target.text).split())
        if len(own & other) < 0.6 * len(own):
            evidence = f"canonical address {page.canonical}, which says something else"
            yield page.url, evidence, line_of(page, "canonical")


def _duplicates(near: bool) -> Callable[[CrawledPages], Iterator[Found]]:
    def find(pages: CrawledPages) -> Iterator[Found]:
        for first, second, pair in pages.alike:
            joined = pages.same(first.canonical or first.url, second.canonical or second.url)
            if joined or forbids_listing(first) or forbids_listing(second) or (pair.kind == "near") != near:
                continue
            what = f"{pair.similarity:.0%} the same as" if near else "the same main text as"
            yield second.url, f"{what} {first.url}", None

    return find


def _orphan(pages: CrawledPages) -> Iterator[Found]:
    if len(pages.pages) == 1:
        return
    home = plain_address(f"{pages.site.origin}/")
    for page in (*pages.read, *(one for one in pages.pages if one.kind == "pdf" and one.status == 200)):
        if page.url not in pages.links_to and plain_address(page.url) != home:
            where = "in the sitemap only" if page.url in pages.in_sitemap else "and in no sitemap"
            yield page.url, f"no page links here; {where}", None


_REFUSED = (401, 403, 429)  # told by who may read the site


def _broken_link(pages: CrawledPages) -> Iterator[Found]:
    for page in pages.pages:
        sources = pages.links_to.get(page.url, ())
        if page.status >= 400 and page.status not in _REFUSED and sources:
            more = f"; {len(sources):,} pages do" if len(sources) > 1 else ""
            yield sources[0], f"links to {page.url}, which answers {page.status}{more}", None


def _server_error(pages: CrawledPages) -> Iterator[Found]:
    for page in pages.pages:
        if page.status >= 500:
            yield page.url, f"answers {page.status}", None


def _sitemap_missing(pages: CrawledPages) -> Iterator[Found]:
    if not pages.site.entries:
        named = ", ".join(one.url for one in pages.site.sitemaps)
        yield pages.site.origin, f"{named} names no page" if named else "no sitemap was found", None


def _sitemap_undated(pages: CrawledPages) -> Iterator[Found]:
    by_sitemap: dict[str, list[str]] = defaultdict(list)
    for entry in pages.site.entries:
        if entry.lastmod is None or moment_of(entry.lastmod) is None:
            by_sitemap[entry.sitemap].append(entry.url)
    for sitemap, urls in by_sitemap.items():
        yield sitemap, f"{len(urls):,} pages without a date of change, such as {urls[0]}", None


def _sitemap_same_date(pages: CrawledPages) -> Iterator[Found]:
    dates = Counter(entry.lastmod for entry in pages.site.entries if entry.lastmod)
    if sum(dates.values()) >= 10 and len(dates) == 1:
        (date,) = dates
        yield pages.site.entries[0].sitemap, f"all {dates[date]:,} pages are dated {date}", None


def _sitemap_wrong(pages: CrawledPages) -> Iterator[Found]:
    for entry in pages.site.entries:
        page = pages.page(entry.url)
        if page is None:
            if pages.is_folder:
                yield entry.sitemap, f"names {entry.url}, where no page is", None
        elif page.status >= 400:
            yield entry.sitemap, f"names {entry.url}, which answers {page.status}", None
        elif plain_address(entry.url) in pages.redirected:
            yield entry.sitemap, f"names {entry.url}, which leads on to {page.url}", None
        elif page.canonical and not pages.same(page.canonical, page.url):
            yield entry.sitemap, f"names {entry.url}, whose canonical address is {page.canonical}", None


def _sitemap_incomplete(pages: CrawledPages) -> Iterator[Found]:
    if pages.site.entries:
        for page in pages.listed:
            if page.url not in pages.in_sitemap:
                yield page.url, "in no sitemap", None


_NO_TITLES = frozenset(("untitled", "document", "untitled document", "new page", "index", "title"))


def _title_missing(pages: CrawledPages) -> Iterator[Found]:
    for page in pages.read:
        if page.title.lower() in _NO_TITLES or not page.title:
            yield page.url, f"title {quoted(page.title)}" if page.title else "no title", line_of(page, "title")


def _title_repeated(pages: CrawledPages) -> Iterator[Found]:
    by_title: dict[str, list[SitePage]] = defaultdict(list)
    for page in pages.listed:
        if page.title and page.title.lower() not in _NO_TITLES:
            by_title[page.title].append(page)
    for title, found in by_title.items():
        for page in found[1:]:
            yield page.url, f"title {quoted(title)} as on {found[0].url}", line_of(page, "title")


def _h1_missing(pages: CrawledPages) -> Iterator[Found]:
    for page in pages.read:
        if not any(one.level == 1 and one.text for one in page.headings):
            yield page.url, "no heading of level 1", None


def _h1_repeated(pages: CrawledPages) -> Iterator[Found]:
    for page in pages.read:
        tops = [one for one in page.headings if one.level == 1 and one.text]
        if len(tops) > 1:
            yield (
                page.url,
                f"{len(tops)} headings of level 1: {quoted(' / '.join(one.text for one in tops))}",
                tops[1].line,
            )


def _heading_skipped(pages: CrawledPages) -> Iterator[Found]:
    for page in pages.read:
        level = None
        for one in page.headings:
            if level is not None and one.level > level + 1:
                yield page.url, f"level {one.level} after level {level}: {quoted(one.text)}", one.line
                break
            level = one.level


def _dates(page: SitePage, pages: CrawledPages, kind: str) -> list[tuple[str, str, datetime]]:
    found = [
        (one.place, one.written, one.when)
        for one in page.dates
        if one.kind == kind and one.when is not None and one.place != "last-modified"
    ]
    if kind == "modified":
        entry = pages.entry_dates.get(page.url)
        if entry is not None:
            found.append(entry)
    return found


def _dates_disagree(pages: CrawledPages) -> Iterator[Found]:
    for page in pages.read:
        for kind in ("published", "modified"):
            found = _dates(page, pages, kind)
            past = [when for _, _, when in found if when <= pages.site.when]
            if kind == "modified" and past:
                # A server's date is often that of the last deployment: wrong only where it lies before the change.
                found += [
                    (one.place, one.written, one.when)
                    for one in page.dates
                    if one.place == "last-modified" and one.when is not None and one.when < max(past) - DAY
                ]
            times = [when for _, _, when in found]
            if times and max(times) - min(times) > DAY:
                yield page.url, f"{kind}: {'; '.join(f'{place} {written}' for place, written, _ in found)}", None


def _date_impossible(pages: CrawledPages) -> Iterator[Found]:
    for page in pages.read:
        stated = [one for one in page.dates if one.place != "last-modified" and one.when is not None]
        late = [one for one in stated if one.when and one.when > pages.site.when + DAY]
        if late:
            yield page.url, f"{late[0].place} {late[0].kind} {late[0].written}, which is still to come", None
            continue
        published = [one for one in stated if one.kind == "published"]
        modified = [one for one in stated if one.kind == "modified"]
        for first in published:
            for second in modified:
                if first.place == second.place and first.when and second.when and second.when < first.when - DAY:
                    yield (
                        page.url,
                        f"{first.place}: modified {second.written}, before it was published {first.written}",
                        None,
                    )


def _date_missing(pages: CrawledPages) -> Iterator[Found]:
    for page in pages.listed:
        if words_of(page.text) >= SOME_WORDS and not any(
            one.place in ("visible", "json-ld", "meta") for one in page.dates
        ):
            yield page.url, f"{words_of(page.text):,} words and no date", None


def _author_missing(pages: CrawledPages) -> Iterator[Found]:
    for page in pages.listed:
        if words_of(page.text) >= SOME_WORDS and page.author is None:
            yield page.url, f"{words_of(page.text):,} words and no author", None


def _language_missing(pages: CrawledPages) -> Iterator[Found]:
    for page in pages.read:
        if page.language is None:
            yield page.url, "no lang attribute", None


_FUNCTION_WORDS: Mapping[str, frozenset[str]] = {
    "en": frozenset(
        [
            "the",
            "and",
            "of",
            "to",
            "is",
            "that",
            "for",
            "with",
            "are",
            "this",
            "on",
            "was",
            "be",
            "by",
            "which",
            "from",
            "it",
        ]
    ),
    "de": frozenset(
        [
            "der",
            "die",
            "und",
            "das",
            "ist",
            "nicht",
            "ein",
            "eine",
            "mit",
            "den",
            "von",
            "zu",
            "im",
            "auf",
            "für",
            "sich",
            "auch",
            "werden",
        ]
    ),
    "fr": frozenset(
        [
            "le",
            "la",
            "les",
            "et",
            "des",
            "est",
            "dans",
            "une",
            "pour",
            "que",
            "qui",
            "sur",
            "du",
            "au",
            "pas",
            "sont",
            "avec",
            "ce",
        ]
    ),
    "es": frozenset(
        [
            "el",
            "los",
            "las",
            "y",
            "del",
            "que",
            "en",
            "una",
            "para",
            "es",
            "con",
            "por",
            "se",
            "su",
            "como",
            "más",
            "está",
        ]
    ),
    "it": frozenset(
        [
            "il",
            "gli",
            "che",
            "di",
            "è",
            "per",
            "una",
            "con",
            "non",
            "sono",
            "della",
            "del",
            "nel",
            "anche",
            "alla",
            "dei",
            "le",
            "si",
        ]
    ),
    "nl": frozenset(
        [
            "het",
            "een",
            "van",
            "en",
            "is",
            "dat",
            "op",
            "te",
            "zijn",
            "met",
            "voor",
            "niet",
            "aan",
            "er",
            "om",
            "de",
            "ook",
            "naar",
        ]
    ),
}


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


def _language_wrong(pages: CrawledPages) -> Iterator[Found]:
    for page in pages.read:
        stated = (page.language or "").lower()[:2]
        found = language_of(page.text)
        if found and stated in _FUNCTION_WORDS and found != stated:
            yield page.url, f"lang={quoted(page.language or '')}, and the text reads as {found}", None


def _elements(kind: str) -> Callable[[CrawledPages], Iterator[Found]]:
    def find(pages: CrawledPages) -> Iterator[Found]:
        for page in pages.read:
            for one in page.elements:
                if one.kind == kind:
                    yield page.url, quoted(one.text), one.line

    return find


_HOLDS_TEXT = re.compile(
    r"price|table|menu|hours|timetable|schedule|tariff|fees?\b|rates|chart|infographic|flyer|poster|notice"
    r"|announcement|opening|specs?\b|"
    r"scan|leaflet|brochure|preis|oeffnung|fahrplan|horaire|tarif|horario",
    re.I,
)
_LEAST_ALT = 4  # words that can say what a table or a notice says


def _text_in_image(pages: CrawledPages) -> Iterator[Found]:
    for page in pages.read:
        images = [one for one in page.elements if one.kind in ("image", "image-without-alt")]
        sparse = words_of(page.text) < SPARSE_WORDS and not page.scripts
        for one in images:
            source, _, alt = one.text.partition(" ")
            name = source.rpartition("/")[2]
            if (
                words_of(alt) < _LEAST_ALT
                and (_HOLDS_TEXT.search(name) or sparse)
                and not re.search(r"icon|logo|badge|avatar", source, re.I)
            ):
                said = f"alt {quoted(alt)}" if alt else "no alternative text"
                yield (
                    page.url,
                    f"{name} with {said}{f', on a page of {words_of(page.text)} words' if sparse else ''}",
                    one.line,
                )


def _image_without_alt(pages: CrawledPages) -> Iterator[Found]:
    for page in pages.read:
        found = [one for one in page.elements if one.kind == "image-without-alt"]
        if found:
            yield page.url, f"{len(found)} images without alt, such as {found[0].text}", found[0].line


def _pdf_without_text(pages: CrawledPages) -> Iterator[Found]:
    for page in pages.pages:
        if page.kind == "pdf" and page.status == 200:
            if page.unread is not None:
                yield page.url, page.unread, None
            elif not page.text:
                yield page.url, "a PDF without text: its pages are pictures", None


def _low_share(pages: CrawledPages) -> Iterator[Found]:
    for page in pages.read:
        own = words_of(page.text)
        if page.words >= SOME_WORDS and own < LEAST_SHARE * page.words:
            yield page.url, f"{own:,} of {page.words:,} visible words are main text", None


def _no_main_text(pages: CrawledPages) -> Iterator[Found]:
    for page in pages.read:
        if not page.words and not page.scripts and page.script_bytes <= 2000:
            yield page.url, "no visible text", None


def findings_of(pages: CrawledPages, progress: Progress | None = None) -> tuple[SurfaceFinding, ...]:
    """Run all checks on a site, in the order of the table."""
    found: list[SurfaceFinding] = []
    for place, check in enumerate(CHECKS, start=1):
        found += check.findings(pages)
        if progress is not None:
            progress.emit("check", step=place, of=len(CHECKS), note=check.name)
    return tuple(found)


CHECKS: tuple[Check, ...] = (
    Check(
        name="unreadable",
        severity="blocks",
        says="The page cannot be parsed within limits of time and memory.",
        remedy="make the page smaller, or nest its elements less deeply",
        find=_unreadable,
    ),
    Check(
        name="server-error",
        severity="blocks",
        says="The server answers with an error of its own.",
        remedy="mend the server, or take the address out of links and sitemap",
        find=_server_error,
    ),
    Check(
        name="text-by-script",
        severity="blocks",
        says="At least half of the main text is there only after scripts ran, which most assistants' agents do not do.",
        remedy="put the text into the HTML that the server sends",
        find=_text_by_script(0.5, 1.01),
    ),
    Check(
        name="text-partly-by-script",
        severity="hinders",
        says="A tenth to half of the main text is there only after scripts ran.",
        remedy="put the text into the HTML that the server sends",
        find=_text_by_script(0.1, 0.5),
    ),
    Check(
        name="empty-without-scripts",
        severity="note",
        says="The page has hardly any text and has scripts; no browser has looked whether they bring the text.",
        remedy="look again with --render, which runs the scripts in Chromium",
        find=_empty_without_scripts,
    ),
    Check(
        name="no-text",
        severity="hinders",
        says="The page has no visible text and no scripts that could bring it.",
        remedy="write text, or take the page away",
        find=_no_main_text,
    ),
    Check(
        name="pdf-without-text",
        severity="blocks",
        says="The PDF holds pictures of pages or cannot be read, so that no text can be taken from it.",
        remedy="recognise its text (OCR), or publish the text as a page",
        find=_pdf_without_text,
    ),
    Check(
        name="page-cut",
        severity="hinders",
        says="The page is larger than what is read of one page.",
        remedy="split the page",
        find=_cut,
    ),
    Check(
        name="canonical-missing",
        severity="note",
        says="The page names no canonical address.",
        remedy="name its own address by link rel=canonical",
        find=_canonical_missing,
    ),
    Check(
        name="canonical-conflict",
        severity="hinders",
        says="The page names several canonical addresses.",
        remedy="keep one",
        find=_canonical_conflict,
    ),
    Check(
        name="canonical-broken",
        severity="hinders",
        says="The canonical address leads to no page, or to a redirect.",
        remedy="name an address that answers 200",
        find=_canonical_broken,
    ),
    Check(
        name="canonical-chain",
        severity="hinders",
        says="The canonical address has another canonical address.",
        remedy="name the last address of the chain",
        find=_canonical_chain,
    ),
    Check(
        name="canonical-elsewhere",
        severity="hinders",
        says="The canonical address is a page with another text, so that this one may not be listed.",
        remedy="name the page's own address",
        find=_canonical_elsewhere,
    ),
    Check(
        name="duplicate",
        severity="hinders",
        says="Two addresses have the same main text, and none is named as canonical for both.",
        remedy="name one as canonical, or redirect the other there",
        find=_duplicates(near=False),
    ),
    Check(
        name="near-duplicate",
        severity="note",
        says="Two addresses have nearly the same main text (Jaccard similarity of at least 0.8).",
        remedy="join them, or say on each what only it is about",
        find=_duplicates(near=True),
    ),
    Check(
        name="orphan",
        severity="hinders",
        says="No page links to this one.",
        remedy="link to it from a page on the same subject",
        find=_orphan,
    ),
    Check(
        name="broken-link",
        severity="hinders",
        says="A link leads to an error.",
        remedy="mend or remove the link, or redirect its address",
        find=_broken_link,
    ),
    Check(
        name="sitemap-missing",
        severity="note",
        says="There is no sitemap, or it names no page.",
        remedy="publish one, and name it in robots.txt",
        find=_sitemap_missing,
    ),
    Check(
        name="sitemap-undated",
        severity="note",
        says="The sitemap does not say when pages were changed.",
        remedy="give lastmod, from the change of the content",
        find=_sitemap_undated,
    ),
    Check(
        name="sitemap-same-date",
        severity="note",
        says="The sitemap dates all pages the same, as builds do, so that the dates say nothing.",
        remedy="give lastmod from the change of the content, not of the build",
        find=_sitemap_same_date,
    ),
    Check(
        name="sitemap-wrong",
        severity="hinders",
        says="The sitemap names an address that is an error, a redirect, or names another as canonical.",
        remedy="take the address out, or mend the page",
        find=_sitemap_wrong,
    ),
    Check(
        name="sitemap-incomplete",
        severity="hinders",
        says="The page is in no sitemap, though others are.",
        remedy="add it to the sitemap",
        find=_sitemap_incomplete,
    ),
    Check(
        name="title-missing",
        severity="hinders",
        says="The page has no title, or one that says nothing.",
        remedy="give the page a title that names its subject",
        find=_title_missing,
    ),
    Check(
        name="title-repeated",
        severity="hinders",
        says="Another page has the same title.",
        remedy="name in the title what only this page is about",
        find=_title_repeated,
    ),
    Check(
        name="h1-missing",
        severity="note",
        says="The page has no heading of level 1.",
        remedy="make its main heading an h1",
        find=_h1_missing,
    ),
    Check(
        name="h1-repeated",
        severity="note",
        says="The page has several headings of level 1.",
        remedy="keep one, and make the others h2",
        find=_h1_repeated,
    ),
    Check(
        name="heading-skipped",
        severity="note",
        says="A heading skips a level, so that what it belongs to is not told.",
        remedy="use the next level",
        find=_heading_skipped,
    ),
    Check(
        name="dates-disagree",
        severity="hinders",
        says="Dates of one page differ by more than a day: visible, JSON-LD, meta, sitemap; Last-Modified where it is "
        "before them.",
        remedy="give one date everywhere: that on which the content was changed",
        find=_dates_disagree,
    ),
    Check(
        name="date-impossible",
        severity="hinders",
        says="A date lies in the future, or a page was changed before it was published.",
        remedy="correct the date",
        find=_date_impossible,
    ),
    Check(
        name="date-missing",
        severity="note",
        says="A page of a hundred words or more does not say when it was written or changed.",
        remedy="show the date of the last change, and give it as dateModified",
        find=_date_missing,
    ),
    Check(
        name="author-missing",
        severity="note",
        says="A page of a hundred words or more does not say who wrote it.",
        remedy="name the author, or the body that answers for it",
        find=_author_missing,
    ),
    Check(
        name="language-missing",
        severity="note",
        says="The page does not say in which language it is.",
        remedy="give the html element a lang attribute",
        find=_language_missing,
    ),
    Check(
        name="language-wrong",
        severity="hinders",
        says="The page's language is not the one that it states (English, German, French, Spanish, Italian and Dutch "
        "are told apart).",
        remedy="correct the lang attribute",
        find=_language_wrong,
    ),
    Check(
        name="json-ld-broken",
        severity="hinders",
        says="A block of JSON-LD is no JSON, or no object.",
        remedy="correct it; a trailing comma and unescaped quotation marks are frequent causes",
        find=broken,
    ),
    Check(
        name="json-ld-invalid",
        severity="hinders",
        says="An object of JSON-LD lacks a property without which its type says nothing, or has a value of the wrong "
        "kind.",
        remedy="add or correct the property, as schema.org describes the type",
        find=invalid,
    ),
    Check(
        name="json-ld-disagrees",
        severity="hinders",
        says="JSON-LD says what the page does not say: a name, an author, a price, an answer or the date of an event.",
        remedy="correct whichever is wrong",
        find=disagreeing,
    ),
    Check(
        name="list-as-text",
        severity="note",
        says="A list is drawn with characters instead of list elements.",
        remedy="use ul or ol with li",
        find=_elements("typed-list"),
    ),
    Check(
        name="table-as-text",
        severity="note",
        says="A table is drawn with characters instead of a table element.",
        remedy="use table with th for its heads",
        find=_elements("typed-table"),
    ),
    Check(
        name="table-without-head",
        severity="note",
        says="A table has no head cells, so that a cell alone does not say what it is.",
        remedy="make its heads th",
        find=_elements("table-without-head"),
    ),
    Check(
        name="text-in-image",
        severity="hinders",
        says="An image seems to hold text that is not on the page: by its name, or as there is hardly any other text; "
        "nobody looked into it.",
        remedy="write its text on the page, or in alt",
        find=_text_in_image,
    ),
    Check(
        name="image-without-alt",
        severity="note",
        says="Images of the main content have no alt attribute.",
        remedy="say in alt what they show; leave it empty for decoration",
        find=_image_without_alt,
    ),
    Check(
        name="main-text-share",
        severity="note",
        says="Less than a quarter of the visible words are main text.",
        remedy="move what is repeated on every page out of it, or write more of what only it says",
        find=_low_share,
    ),
    Check(
        name="dangling-start",
        severity="hinders",
        says="A passage begins with a word for something that neither it nor its heading names.",
        remedy="name the subject in the passage's first sentence, or give it a heading that does",
        find=dangling_starts,
    ),
    Check(
        name="claim-without-source",
        severity="note",
        says="A figure is said to come from studies, surveys or experts, or is a share of people, and no source "
        "stands beside it.",
        remedy="name the source beside the figure, and link to it",
        find=claims_without_source,
    ),
    Check(
        name="contradiction",
        severity="hinders",
        says="Two pages state different values of the same thing.",
        remedy="find out which is right, and correct the other",
        find=contradictions,
    ),
)
"""Every check; docs/how-to/surface-audit.md has them as a table."""
