"""The checks of what a page's head, links and elements say, of its charset, its redirects and its llms.txt."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import partial

from trimtab.publishing.answerable import says_error
from trimtab.publishing.charset import charset_problem
from trimtab.publishing.check_table import SPARSE_WORDS, check, elements_of
from trimtab.publishing.page_links import llms_links
from trimtab.publishing.pages import parse_time
from trimtab.publishing.records import SitePage
from trimtab.publishing.site_pages import (
    CrawledPages,
    Fact,
    forbids_listing,
    line_of,
    plain_address,
    quoted,
    words_of,
)

LEAST_WORDS, LEAST_SHARED = 6, 0.2  # words of a description, and the share of them that its page holds at least
LONGEST_DESCRIPTION = 320  # characters; searches show half of that
SLOW = 3.0  # seconds; agents that answer a user wait some seconds for a page
MOST_HOPS = 1  # redirects before an address is a chain
# ISO 639-1 with a script or a region, or x-default (Google Search Central, "localized versions").
_LANGUAGE = re.compile(r"x-default|[a-z]{2}(?:-[a-z]{4})?(?:-(?!uk\b|eu\b|un\b)[a-z]{2})?", re.I)
_MOVES_ON = re.compile(r"\s*[\d.]*\s*[;,]\s*(?:url\s*=)?\s*['\"]?\s*(\S+)", re.I)
_HEADED = re.compile(r"\s*#\s+\S")
MOST_OF_WALL = 80  # words of a page that asks for something and says little else
MOST_OF_PLACEHOLDER = 200
_CONSENT = re.compile(
    r"(?=.*\b(?:accept|agree|allow|akzeptieren|zustimmen)\b).*?\b(?:cookies?|consent|privacy)\b", re.I | re.S
)
_CHALLENGE = re.compile(
    r"are you (?:a )?(?:robot|human)|captcha|checking your browser|unusual traffic|enable javascript and cookies"
    r"|(?:verify|prove|confirm) (?:that )?you are (?:a |not a )?(?:human|robot|person)",
    re.I,
)
_PAYWALL = re.compile(
    r"(?:last|free) articles?\b|subscri(?:be|ption)\b.{0,40}\b(?:read|continue|access)"
    r"|for (?:subscribers|members) only",
    re.I | re.S,
)
_LOGIN = re.compile(
    r"(?:please |you (?:must|need to) )(?:log|sign) ?in\b|members only|(?:log|sign) ?in to (?:view|read|continue|see)",
    re.I,
)
_TO_COME = re.compile(
    r"lorem ipsum|\bcoming soon\b|under construction|(?:page|section) (?:is|will be) (?:empty|written)", re.I
)


# ---- canonical addresses, redirects


check(
    "canonical-unused",
    "hinders",
    "A canonical link stands where it is not read, or names no address.",
    "put one link rel=canonical with a whole address into the head",
)(partial(elements_of, kind="odd-canonical"))


@check(
    "canonical-unlisted",
    "hinders",
    "The canonical address is a page that asks not to be listed.",
    "name an address that may be listed, or take noindex away there",
)
def _canonical_unlisted(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.read:
        target = pages.page(page.canonical) if page.canonical and not pages.same(page.canonical, page.url) else None
        if target is not None and forbids_listing(target):
            yield page.url, f"canonical address {page.canonical}, which says noindex", line_of(page, "canonical")


@check(
    "og-url",
    "note",
    "og:url names another address than the canonical one.",
    "name one address in both",
)
def _og_url(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.read:
        for element in page.elements:
            own = page.canonical or page.url
            if element.kind == "og-url" and element.text and not pages.same(element.text, own):
                yield page.url, f"og:url {element.text}, and the canonical address is {own}", element.line


@check(
    "moves-on",
    "hinders",
    "The page sends readers on by meta refresh or by a script, which most agents do not follow.",
    "redirect on the server (301), or take it away",
)
def _moves_on(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.pages:
        if page.status != 200 or page.kind != "html":
            continue
        for element in page.elements:
            goal = _MOVES_ON.match(element.text) if element.kind == "refresh" else None
            if goal is not None:
                yield page.url, f"meta refresh: {element.text}", element.line
            elif element.kind == "script-move" and not pages.same(element.text, page.url):
                yield page.url, f"a script goes to {element.text}", element.line


@check(
    "redirect-chain",
    "hinders",
    "An address leads to a page over several redirects.",
    "redirect it to the last address at once",
)
def _redirect_chain(pages: CrawledPages) -> Iterator[Fact]:
    for asked, led in pages.site.redirects.items():
        if len(led.path) > MOST_HOPS:
            yield led.path[-1], f"{asked} leads on over {len(led.path)} redirects: {' → '.join(led.path)}", None


@check(
    "redirect-temporary",
    "note",
    "An address redirects for the time being (302, 303, 307), so that the old one stays listed.",
    "redirect for good (301 or 308), if it is so",
)
def _redirect_temporary(pages: CrawledPages) -> Iterator[Fact]:
    for asked, led in pages.site.redirects.items():
        passing = [status for status in led.statuses if status in (302, 303, 307)]
        if passing and plain_address(asked) != plain_address(led.path[-1]):
            yield led.path[-1], f"{asked} redirects here with {passing[0]}", None


# ---- versions in other languages


@check(
    "alternate-wrong",
    "hinders",
    "A link to a version in another language has a code that is none, an address that is not whole, no page, two "
    "addresses, or no link back.",
    "give each version all links, its own included, with ISO 639-1 codes and whole addresses",
)
def _alternate_wrong(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.read:
        addresses: dict[str, set[str]] = defaultdict(set)
        for element in page.elements:
            if element.kind == "alternate":
                code, _, address = element.text.partition(" ")
                addresses[code.lower()].add(address)
                problem = _alternate_problem(pages, page, code, address)
                if problem:
                    yield page.url, f"hreflang {problem}", element.line
        for code, several in addresses.items():
            if len(several) > 1:
                yield page.url, f"hreflang {code} twice: {' and '.join(sorted(several))}", line_of(page, "alternate")
        if addresses and not any(pages.same(one, page.url) for several in addresses.values() for one in several):
            yield page.url, "hreflang links without one to the page itself", line_of(page, "alternate")


def _alternate_problem(pages: CrawledPages, page: SitePage, code: str, address: str) -> str | None:
    """Say what is wrong with one link to another version; None where nothing is."""
    if not _LANGUAGE.fullmatch(code):
        return f"{quoted(code)} is no code of a language"
    if not address.startswith(("http://", "https://")):
        return f"{code} has an address that is not whole: {quoted(address)}"
    target = pages.page(address)
    if target is None:
        is_own = address.startswith(f"{pages.site.origin}/")
        return f"{code} leads to {address}, where no page is" if pages.is_folder and is_own else None
    if target.status >= 400:
        return f"{code} leads to {address}, which answers {target.status}"
    if target is page or target.status != 200:
        return None
    back = [one.text.partition(" ")[2] for one in target.elements if one.kind == "alternate"]
    return None if any(pages.same(one, page.url) for one in back) else f"{code} leads to {address}, which has none back"


# ---- descriptions


@check(
    "description-missing",
    "note",
    "The page has no description, or an empty one, though others have one.",
    "say in a sentence or two what only this page says",
)
def _description_missing(pages: CrawledPages) -> Iterator[Fact]:
    said = {page.url: [one for one in page.elements if one.kind == "description"] for page in pages.listed}
    if sum(any(one.text for one in own) for own in said.values()) < 0.5 * len(said):
        return  # a site that gives none has chosen so
    for address, own in said.items():
        if not any(one.text for one in own):
            yield address, "an empty description" if own else "no description", own[0].line if own else None


@check(
    "description-repeated",
    "note",
    "Another page has the same description.",
    "say what only this page says",
)
def _description_repeated(pages: CrawledPages) -> Iterator[Fact]:
    first: dict[str, str] = {}
    common = _common_description(pages)
    for page in pages.listed:
        for element in page.elements:
            if element.kind != "description" or not element.text or element.text == common:
                continue
            known = first.setdefault(element.text, page.url)
            if known != page.url:
                yield page.url, f"description {quoted(element.text)} as on {known}", element.line


def _common_description(pages: CrawledPages) -> str | None:
    """Return the description that the site's template gives to most pages; None without one."""
    counts: dict[str, int] = defaultdict(int)
    for page in pages.listed:
        for element in page.elements:
            if element.kind == "description":
                counts[element.text] += 1
    most = max(counts, key=lambda text: counts[text], default=None)
    return most if most is not None and counts[most] > 0.2 * len(pages.listed) and counts[most] > 2 else None


@check(
    "description-odd",
    "note",
    "The page has several descriptions, one that is much longer than a search shows, or one of something else.",
    "keep one of a sentence or two on what this page says",
)
def _description_odd(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.listed:
        own = [one for one in page.elements if one.kind == "description"]
        if len(own) > 1:
            yield page.url, f"{len(own)} descriptions", own[1].line
        elif own and len(own[0].text) > LONGEST_DESCRIPTION:
            yield page.url, f"a description of {len(own[0].text):,} characters", own[0].line
        elif own and _is_of_another(own[0].text, f"{page.title} {page.text}"):
            yield page.url, f"the page holds hardly a word of its description {quoted(own[0].text)}", own[0].line


def _is_of_another(description: str, text: str) -> bool:
    """True if a text holds less than LEAST_SHARED of a description's longer words."""
    said, there = (set(re.findall(r"[^\W\d_]{4,}", one.lower())) for one in (description, text))
    return len(said) >= LEAST_WORDS and len(said & there) < LEAST_SHARED * len(said)


# ---- links


check(
    "link-by-script",
    "hinders",
    "A link works by a script alone.",
    "use a with an href that leads there",
)(partial(elements_of, kind="script-link", what="a link by a script:"))
check(
    "link-private",
    "note",
    "A link leads to one's own machine or network.",
    "link to the public address",
)(partial(elements_of, kind="private-link", what="a link to"))
check(
    "link-empty",
    "note",
    "A link has no text and nothing in its place.",
    "say where it leads",
)(partial(elements_of, kind="empty-link", what="a link without text to"))
check(
    "link-vague",
    "note",
    "The text of a link does not say where it leads.",
    "name the page that it leads to",
)(partial(elements_of, kind="vague-link", what="the text of a link:"))
check(
    "link-nofollow",
    "note",
    "A link to an own page asks not to be followed.",
    "take nofollow away",
)(partial(elements_of, kind="nofollow-link", what="nofollow to"))
check(
    "anchor-broken",
    "note",
    "A link leads to a part of the page that is not there.",
    "correct the part",
)(partial(elements_of, kind="broken-anchor", what="no part is named so:"))


@check("fragment-broken", "note", "A link leads to a part of another page that is not there.", "correct the part")
def _fragment_broken(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.read:
        for element in page.elements:
            if element.kind == "fragment":
                address, _, part = element.text.partition("#")
                target = pages.page(address)
                if target in pages.read and target is not None and target.anchors and part not in target.anchors:
                    yield page.url, f"links to {element.text}, where no part is named so", element.line


# ---- what is no text of the page


@check(
    "text-in-frame",
    "hinders",
    "A frame holds what the page itself does not say.",
    "write it on the page, or link to the page in the frame",
)
def _text_in_frame(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.read:
        for element in page.elements:
            is_own = element.text.startswith(f"{pages.site.origin}/")
            if element.kind == "frame" and (is_own or page.words < SPARSE_WORDS):
                yield page.url, f"a frame of {element.text}", element.line


check(
    "filled-by-script",
    "hinders",
    "An element of the content is empty until a script fills it, which most assistants' agents do not run.",
    "put its text into the HTML that the server sends",
)(partial(elements_of, kind="brought", what="filled by a script:"))
check(
    "text-drawn",
    "note",
    "Text is drawn: on a canvas, in a picture or by a style sheet.",
    "write it on the page as text",
)(partial(elements_of, kind="drawn", what="drawn:"))
check(
    "text-hidden",
    "hinders",
    "A sentence is hidden from readers, or a comment instructs a model.",
    "show it to everybody, or take it away",
)(partial(elements_of, kind="hidden", what="hidden:"))
check(
    "heading-as-text",
    "note",
    "Bold paragraphs stand in place of headings.",
    "make them h2",
)(partial(elements_of, kind="bold-heading", what="bold:"))


def _walls(pages: CrawledPages, said: re.Pattern[str], most: int) -> Iterator[Fact]:
    """Find the pages of at most so many words that say this, which stands in place of what the page is about."""
    for page in pages.read:
        words = words_of(page.text)
        found = said.search(page.text) if words <= most else None
        if found is not None:
            yield page.url, f"{quoted(found[0])}, on a page of {words} words", None


check(
    "consent-wall",
    "blocks",
    "The page asks for consent and says nothing else until it is given.",
    "send the text with the page, and ask for consent above it",
)(partial(_walls, said=_CONSENT, most=MOST_OF_WALL))
check(
    "challenge",
    "blocks",
    "The page asks whether a person reads it, and says nothing else.",
    "let agents that you want to read it pass",
)(partial(_walls, said=_CHALLENGE, most=MOST_OF_WALL))
check(
    "paywall",
    "blocks",
    "The page asks for a subscription and says nothing else.",
    "show what may be cited without one",
)(partial(_walls, said=_PAYWALL, most=MOST_OF_WALL))


@check(
    "login",
    "blocks",
    "The page asks for a login and says nothing else.",
    "show what may be public without a login",
)
def _login(pages: CrawledPages) -> Iterator[Fact]:
    yield from _walls(pages, _LOGIN, MOST_OF_WALL)
    for page in pages.read:
        line = line_of(page, "password")
        if line is not None and words_of(page.text) <= MOST_OF_WALL and not _LOGIN.search(page.text):
            yield page.url, f"a field for a password, on a page of {words_of(page.text)} words", line


check(
    "placeholder",
    "hinders",
    "The page holds a text that stands in for one to come.",
    "write it, or take the page away until it is written",
)(partial(_walls, said=_TO_COME, most=MOST_OF_PLACEHOLDER))


@check(
    "soft-404",
    "hinders",
    "The page answers 200 and says that it is an error, so that it is listed as a page.",
    "answer 404 or 410, or write the page",
)
def _soft_404(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.read:
        heads = (page.title, *(heading.text for heading in page.headings if heading.level == 1))
        said = says_error(heads, page.text)
        is_meant = pages.is_folder and plain_address(page.url).endswith("/404")  # the page that a server shows with 404
        if said is not None and not is_meant:
            yield page.url, f"it answers 200, and says it is an error: {quoted(said)}", None


@check(
    "links-not-followed",
    "note",
    "The page asks agents not to follow its links.",
    "take nofollow away, unless others write the links",
)
def _links_not_followed(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.read:
        if "nofollow" in page.directives.get("*", ()) and not forbids_listing(page):
            yield page.url, "robots: nofollow", None


@check(
    "unavailable-since",
    "blocks",
    "The page asks not to be listed from a day on that has passed.",
    "take unavailable_after away, or the page",
)
def _unavailable_since(pages: CrawledPages) -> Iterator[Fact]:
    for page in pages.read:
        for agent, written in page.directives.items():
            for directive in written:
                name, _, day = directive.partition(":")
                when = parse_time(day.strip()) if name.strip() == "unavailable_after" else None
                if when is not None and when < pages.site.when:
                    yield page.url, f"{directive} for {'all agents' if agent == '*' else agent}", None


@check("slow", "note", "The page took seconds to come.", "make it faster for agents: they wait some seconds")
def _slow(pages: CrawledPages) -> Iterator[Fact]:
    for answer in pages.site.pages:
        if answer.seconds > SLOW and answer.status == 200:
            yield answer.url, f"came after {answer.seconds:.1f} seconds", None


@check(
    "charset-wrong",
    "hinders",
    "The charset is missing, contradicts itself, or is not that of the text.",
    "send Content-Type: text/html; charset=utf-8, and text in UTF-8",
)
def _charset_wrong(pages: CrawledPages) -> Iterator[Fact]:
    for answer in pages.site.pages:
        problem = charset_problem(answer) if answer.status == 200 else None
        if problem:
            yield answer.url, problem, None


@check(
    "llms-txt-wrong",
    "note",
    "llms.txt has no heading, names no page, or names pages that are not there.",
    "write it as llmstxt.org says: a heading, then lists of links with a few words each",
)
def _llms_txt_wrong(pages: CrawledPages) -> Iterator[Fact]:
    llms = pages.site.llms
    if llms is None:
        return
    text = llms.content.decode("utf-8", "replace")
    if "html" in llms.headers.get("content-type", "") or text.lstrip()[:1] == "<":
        yield llms.url, "it is a page of HTML", None
        return
    if not _HEADED.match(text.lstrip("\ufeff")):
        yield llms.url, "it does not begin with a heading", 1
    named = llms_links(llms)
    if not named:
        yield llms.url, "it has no links", None
    for address in named:
        page = pages.page(address)
        if page is not None and page.status >= 400:
            yield llms.url, f"names {address}, which answers {page.status}", None
