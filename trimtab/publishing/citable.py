"""Checks of what can be cited: passages that do not stand alone, claims without a source, contradicting pages."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from trimtab.base.grammar import SENTENCE
from trimtab.base.records import Document, Section
from trimtab.data.duplicates import ellipsize, normalise_text
from trimtab.data.markdown import parse_markdown
from trimtab.measurement.facts import PREPOSITIONS, read
from trimtab.measurement.numerals import words
from trimtab.measurement.stances import MEASURED
from trimtab.measurement.tokens import TextToken
from trimtab.publishing.pages import headed_passages
from trimtab.publishing.records import ContradictingPages, SitePage
from trimtab.publishing.site_pages import MOST_EVIDENCE, CrawledPages, Fact, quoted
from trimtab.retrieval.chunk import chunk_document

_VERB = (
    r"is|are|was|were|has|have|had|can|could|will|would|must|should|may|might|does|do|did|means|makes|made|allows"
    r"|lets|gives|gave"
    r"|costs|applies|apply|includes|include|works|work|runs|run|takes|took|needs|need|opens|open|closes|close"
    r"|helps|shows|happens"
    r"|depends|requires|require|also|only|then|usually|always|never|often"
)
# A bare pronoun as the subject; "this guide" names its subject, "it is possible to" needs none.
_PRONOUN = re.compile(rf"(?:this|that|these|those|it|they|he|she)(?:['’](?:s|re|ll|ve|d)|\s+(?:{_VERB}))\b", re.I)
_EXPLETIVE = re.compile(
    r"it(?:['’]s|\s+(?:is|was|has been|will be|can be|may be|would be))\s+(?:\w+\s+)?(?:possible|okay|ok|fine|good"
    r"|great|impossible|important|necessary|best|better|easy|hard|difficult|useful|helpful|safe|clear|common|rare"
    r"|worth|recommended|advisable|likely|unlikely|true|time|known|said|up to|\w+ed that)\b"
    r"|it(?:['’]s|\s+is)\s+(?:\w+\s+)?in\s+(?:\w+\s+){1,3}(?:interests?|favou?r)\b"
    r"|it\s+(?:may|might|can|could|will|would)\s+(?:\w+\s+)?be\s+(?:\w+\s+)?(?:necessary|possible|useful|helpful"
    r"|better|best|hard|easy)\b"
    r"|it\s+(?:takes?|took|depends|does not matter|doesn['’]t matter|may seem|seems|appears|rains?|snows?)\b"
    r"|that\s+(?:said|being said)\b"
    r"|(?:this|that)\s+is\s+(?:a|the)\s+(?:guide|page|list|site|document|article)\b",
    re.I,
)
_ELSEWHERE = re.compile(
    r"(?:as|like)\s+(?:(?:was|is|has been|we|i|already|just|it was)\s+)*(?:mentioned|described|noted|said|shown"
    r"|discussed|stated|explained|seen|listed|outlined)\s+(?:above|before|earlier|previously|already"
    r"|in the (?:previous|last) (?:section|chapter|paragraph|page))\b"
    r"|as\s+(?:above|before)\b|see\s+above\b|the\s+(?:latter|former)\b|the\s+above(?:[- ]mentioned)?\b"
    r"|the\s+aforementioned\b"
    r"|(?:the|that)\s+same\s+(?:applies|goes|holds)\b|(?:for|because of|due to)\s+this\s+reason\b"
    r"|in\s+(?:this|that)\s+case\b"
    r"|both\s+of\s+(?:these|them)\b|neither\s+of\s+(?:these|them)\b",
    re.I,
)
_NO_SUBJECT = frozenset(
    words(
        "overview introduction details notes note more summary background example examples general description about "
        "conclusion faq information further other miscellaneous home welcome next continued"
    )
)
_LEADING = re.compile(r"^(?:[-*>#|\s]|\d+[.)]\s)+")


def dangling_starts(pages: CrawledPages) -> Iterator[Fact]:
    """Find passages that begin with a reference to what stands elsewhere.

    "As above", "the latter" and their kin point to another passage wherever they stand. A bare pronoun as the
    subject ("it closes", "this is why") does so unless the passage is the first below a heading of its own that
    names something.
    """
    for page in pages.listed:
        before = None
        for head, text in headed_passages(page):
            start = _LEADING.sub("", text).replace("*", "").replace("_", "")[:200]
            nearest = head.rpartition(" > ")[2]
            headed = head != before and " > " in head and bool(set(normalise_text(nearest).split()) - _NO_SUBJECT)
            before = head
            if text.startswith(("```", "|")):
                continue
            pronoun = _PRONOUN.match(start) and not _EXPLETIVE.match(start) and not headed
            if _ELSEWHERE.match(start) or pronoun:
                yield page.url, quoted(start), None


_SAY = (
    r"(?:show|shows|showed|shown|find|finds|found|suggest|suggests|suggested|prove|proves|proved|proven|estimate"
    r"|estimates|estimated|agree|confirm|confirms|confirmed|reveal|reveals|revealed|say|says|indicate|indicates"
    r"|indicated|recommend|recommends|warn|warns|report)"
)
_OTHERS = (
    r"(?:(?:many|most|several|some|recent|new|numerous|independent|leading|\d+)\s+)*(?:studies|surveys|researchers"
    r"|polls|experts|scientists|analysts|statistics|doctors|trials|research)"
    r"|(?:a|an|one|another)\s+(?:(?:recent|new|large|major|independent|\d{4})\s+)*(?:study|survey|poll|report"
    r"|analysis|trial)"
)
# What others found, without saying who: "studies show", "a recent survey found", "according to experts".
_LEANS = re.compile(
    rf"\b(?:{_OTHERS})\s+(?:(?:have|has|also|clearly|consistently|often|now)\s+)*{_SAY}\b"
    rf"|\baccording to (?:{_OTHERS})\b"
    r"|\b(?:scientifically|clinically|statistically) (?:proven|shown)\b"
    r"|\bit (?:is|has been) (?:scientifically )?proven that\b",
    re.I,
)
_SHARE_OF_PEOPLE = re.compile(
    r"\b\d[\d.,]*\s?(?:%|percent|per cent)\s+of\s+(?:all\s+|the\s+|our\s+|\w+\s+)?(?:people|visitors|users|customers"
    r"|adults|children|families|households|companies|businesses|respondents|patients|students|teachers|workers"
    r"|employees|members|readers|buyers|consumers|europeans|americans|drivers|farmers|schools|towns|cities)\b"
    r"|\b(?:nine|eight|seven|two|three|four)\s+(?:out of|in)\s+(?:ten|three|five|four)\s+\w+",
    re.I,
)
_SOURCE = re.compile(
    r"https?://|\bdoi\b|\[\d+\]|\[\^\w+\]|\([^()]*\b(?:19|20)\d\d[a-z]?\)|\baccording to (?:the |a |an )?[A-Z]"
    r"|\bsource:"
    r"|\b[A-Z][\w-]+ (?:et al\.?|and [A-Z][\w-]+) \("
    r"|\b(?:by|from|of) (?:the )?(?:[A-Z][\w-]+ ){1,5}(?:University|Institute|Office|Agency|Ministry|Bureau|Council"
    r"|Association|Society)\b|\b(?:University|Institute|Office|Agency|Ministry|Bureau|Council) (?:of|for) [A-Z]"
    r"|\bour own\b|\bwe (?:counted|asked|surveyed|measured)\b",
)


def claims_without_source(pages: CrawledPages) -> Iterator[Fact]:
    """Find sentences that lean on studies or experts, or give a share of people, without a link or a named source."""
    for page in pages.listed:
        leaning = [sentence.text for sentence in sentences_of(page) if leans_on_others(sentence.text)]
        linked = _linked_words(page) if leaning else ""
        for text in leaning:
            if not has_source(text, linked):
                yield page.url, quoted(text), None


def leans_on_others(sentence: str) -> bool:
    """Return True if a sentence gives a share of people, or says what studies, surveys or experts found."""
    return bool(_SHARE_OF_PEOPLE.search(sentence) or _LEANS.search(sentence))


def has_source(sentence: str, linked: str) -> bool:
    """Return True if a sentence names its source or stands in a paragraph with a link (`linked`: those, one a line)."""
    return bool(_SOURCE.search(sentence)) or normalise_text(sentence) in linked


def _linked_words(page: SitePage) -> str:
    return "\n".join(map(normalise_text, page.linked))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimCount:
    """Numbers of sentences that state a number, date or time, and of those with a link or a named source beside it."""

    claims: int
    sourced: int


def count_claims(pages: CrawledPages) -> ClaimCount:
    """Count the sentences that state a number, a date or a time, with and without a source."""
    claims = sourced = 0
    for page in pages.listed:
        linked = _linked_words(page)
        for sentence in sentences_of(page):
            if re.search(r"\d", sentence.text) and any(token.kind in MEASURED for token in read(sentence.text)):
                claims += 1
                sourced += has_source(sentence.text, linked)
    return ClaimCount(claims=claims, sourced=sourced)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """A sentence of a page, or a cell of a table with its heads, and the heading above it.

    `written`: as it stands on the page, of a cell the whole row.
    """

    text: str
    heading: str
    written: str


_TABLE = re.compile(r"(?:^[^\S\n]*\|.*(?:\n|\Z))+", re.M)
_FENCED = re.compile(r"^```.*?(?:^```|\Z)", re.M | re.S)


def sentences_of(page: SitePage) -> tuple[Sentence, ...]:
    """Split a page's main text, without code, into sentences; a cell of a table stands with its heads."""
    if not page.text:
        return ()
    title, sections = parse_markdown(_FENCED.sub("", page.text), page.title)
    return tuple(_sentences(Document(id=page.url, title=title, source=page.url, sections=sections, digest="")))


def sentences_in(document: Document) -> tuple[Sentence, ...]:
    """Split a document as `sentences_of` splits a page."""
    sections = (replace(section, text=_FENCED.sub("", section.text)) for section in document.sections)
    return tuple(_sentences(replace(document, sections=tuple(sections))))


def _sentences(document: Document) -> Iterator[Sentence]:
    for section in document.sections:
        heading = section.path[-1] if section.path else document.title
        for table in _TABLE.findall(section.text):
            for text, row in _cells(table):
                yield Sentence(text=text, heading=heading, written=row)
        rest = Section(path=section.path, text=_TABLE.sub("\n", section.text).strip())
        for passage in chunk_document(replace(document, sections=(rest,)), words=SENTENCE):
            text = _LEADING.sub("", re.sub(r"[*_]{1,2}", "", " ".join(passage.text.split())))
            yield Sentence(text=text, heading=heading, written=passage.text)


def _cells(table: str) -> Iterator[tuple[str, str]]:
    """Yield the cells of a table with their heads, each with its row as it is written."""
    lines = table.splitlines()
    rows = [([cell.strip() for cell in line.strip().strip("|").split("|")], line) for line in lines]
    rows = [(row, line) for row, line in rows if not all(re.fullmatch(r":?-*:?", cell) for cell in row)]
    for row, line in rows[1:]:
        for head, cell in zip(rows[0][0][1:], row[1:], strict=False):
            if cell and row[0]:
                yield f"{row[0]}, {head}: {cell}", line


# Verbs that say only that a thing has a value: "costs 45 euros" and "the price is 45 euros" say it of the same thing.
_SAYS_LITTLE = frozenset(
    words(
        "is are was were be been has have had will can do does did it its he she they we you i this that these those "
        "there their our your his her and or but so as also now then only just still currently today always usually "
        "cost costs pay pays priced take takes took get gets got make makes made measure measures contain contains "
        "hold holds held count counts number amount up down from to until till with without than more less about "
        "total altogether"
    )
)
_NOT_EXACT = re.compile(
    r"\b(?:about|around|approximately|approx|nearly|almost|roughly|some|circa|over|under|up to|more than|less than"
    r"|at least)\b",
    re.I,
)
_NUMBERED = frozenset(
    words(
        "figure fig step chapter example listing exercise question part table section page line item release note "
        "version level lesson unit day week phase option method"
    )
)
_CODE = re.compile(r"[`{}=<>]|\w\(\)|\w_\w")
_Measure = tuple[str, str, str, str]  # kind, unit, what is counted, bound


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedValue:
    """A statement that a thing has a value: the words apart from the value, the value, the sentence, and its page."""

    subject: frozenset[str]
    measure: _Measure
    value: str
    sentence: Sentence
    page: str


def contradictions(pages: CrawledPages) -> Iterator[Fact]:
    """Find pairs of pages that state different values of the same thing, as `disagreements` does."""
    for statement, usual in disagreements((page.url, sentences_of(page)) for page in pages.listed):
        other = f"{quoted(usual[0].sentence.text)} on {usual[0].page}"
        yield statement.page, f"{quoted(statement.sentence.text)}, and {other}", None


def disagreements(
    pages: Iterable[tuple[str, Sequence[Sentence]]],
) -> Iterator[tuple[StatedValue, Sequence[StatedValue]]]:
    """Find the statements of pages whose value is another than the usual one of the same thing: the same words around
    one number, date or time. Each comes with the statements of the usual value.

    Only the first clause of a sentence counts; its words, and its other values, must be equal, and be at least three
    (two, where one is a name). A statement of which a page has several values, or of which there are three values or
    more on as many pages (a property that each page has its own of), is left out.
    """
    by_subject: dict[tuple[frozenset[str], _Measure], dict[str, dict[str, StatedValue]]] = defaultdict(dict)
    for page, sentences in pages:
        for sentence in sentences:
            for statement in _statements(sentence, page):
                stated = by_subject[statement.subject, statement.measure].setdefault(page, {})
                stated.setdefault(statement.value, statement)
    for by_page in by_subject.values():
        single = [next(iter(stated.values())) for stated in by_page.values() if len(stated) == 1]
        values = list(dict.fromkeys(statement.value for statement in single))
        if len(values) < 2 or (len(values) > 2 and len(single) < 2 * len(values)):
            continue
        counts = {value: sum(statement.value == value for statement in single) for value in values}
        usual = max(values, key=lambda value: counts[value])
        others = [statement for statement in single if statement.value == usual]
        yield from ((statement, others) for statement in single if not _agree(statement.value, usual))


class Contradictions:
    """The contradictions between documents, whose sources are the names of their pages, by what is cited."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._by_page: dict[str, list[tuple[str, StatedValue, StatedValue]]] = defaultdict(list)
        for odd, usual in disagreements((document.source, sentences_in(document)) for document in documents):
            for statement, other in ((odd, usual[0]), *((statement, odd) for statement in usual)):
                written = _plain_words(statement.sentence.written)
                self._by_page[statement.page].append((written, statement, other))

    def of(self, page: str, text: str) -> Iterator[ContradictingPages]:
        """Yield for each statement of a page that stands in a text the first page that says otherwise."""
        plain = _plain_words(text) if page in self._by_page else ""
        for written, statement, other in self._by_page.get(page, ()):
            if written in plain:
                sentences = (ellipsize(each.sentence.text, MOST_EVIDENCE) for each in (statement, other))
                yield ContradictingPages(pages=(page, other.page), statements=(next(sentences), next(sentences)))


def _plain_words(text: str) -> str:
    return " ".join(normalise_text(re.sub(r"[|*_]", " ", text)).split())


_FIRST_CLAUSE = re.compile(r",\s+(?:and|but|so|while|though|although|which|where|because|as|since|who)\s.*|;\s.*", re.S)
_MOST_VALUES = 3  # of a sentence


def _statements(sentence: Sentence, page: str) -> Iterator[StatedValue]:
    """Read the statements of a sentence's first clause: each value by the words and other values around it."""
    text = _FIRST_CLAUSE.sub("", sentence.text)
    if len(text) > 400 or _NOT_EXACT.search(text) or _CODE.search(text) or text.endswith("?"):
        return
    tokens = read(text)
    measured = [other for other in tokens if other.kind in MEASURED]
    if not 0 < len(measured) <= _MOST_VALUES or any(other.stance != "given" for other in tokens):
        return
    others = [other for other in tokens if other.kind not in MEASURED]
    named = any(other.capital and not other.start for other in others)
    content = {_stem(other.value) for other in others if _says_something(other)}
    for token in measured:
        other_values = {f"{other.kind} {other.value} {other.unit}" for other in measured if other is not token}
        if token.bound or token.soft or (other_values and _says_when(token)):
            continue
        before = tokens[tokens.index(token) - 1].value if tokens.index(token) else ""
        subject = frozenset(content | ({_stem(token.counted)} if token.counted else set()))
        if not content or len(subject | other_values) < (2 if named else 3) or _stem(before) in _NUMBERED:
            continue
        yield StatedValue(
            subject=subject | other_values,
            measure=(token.kind, token.unit, token.counted, token.bound),
            value=token.value,
            sentence=sentence,
            page=page,
        )


def _says_when(token: TextToken) -> bool:
    """Return True for a date, and for a number that can be a year: beside another value they say when that one held."""
    is_bare_number = token.kind == "number" and not token.unit and not token.counted
    is_year = is_bare_number and bool(re.fullmatch(r"1[5-9]\d\d|20\d\d", token.value))
    return is_year or token.kind == "date"


def _says_something(token: TextToken) -> bool:
    return not token.link and token.value not in _SAYS_LITTLE and token.value not in PREPOSITIONS


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _agree(value: str, other: str) -> bool:
    """Return True if two values may be the same: what one leaves open (?) the other may say."""
    if len(value) != len(other):
        return value.rstrip("amp?") == other.rstrip("amp?") and ("?" in value or "?" in other)
    return all("?" in pair or pair[0] == pair[1] for pair in zip(value, other, strict=True))
