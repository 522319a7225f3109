"""Drafts questions from the facts that documents state, without a model: amounts, dates, times, names, definitions, the
rows of tables, and what stands as `name: value`.

A sentence is cut into subject, verb and rest; the fact is taken out of the rest and asked for. English alone, and only
the clauses whose parts are certain: most sentences give nothing, and what is given reads as a person writes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, NamedTuple

from trimtab.base.records import Document, Passage
from trimtab.measurement.numerals import SPELLED, TENS, words
from trimtab.retrieval.extract import is_of_changes
from trimtab.retrieval.sentences import can_answer, plain_text

QuestionKind = Literal["one passage", "two passages", "not answered", "own question"]
_BELOW = " > "  # between a document and its headings
MOST_WORDS = 16  # of a drafted question
_SUBJECT_WORDS, _REST_WORDS = 8, 9
_DEFINED_WORDS = 4
_VALUE_WORDS = 10
_SHARED_KEYS = 2  # that two things have, from which on they are alike
_LOOKED_AT = 20  # things with the same key

_FIRST, _THIRD = ("am", "was"), ("are", "were")
_AUXILIARIES = frozenset(words("is are was were may can must will should could would might shall has have had"))
_NO_SUBJECT = frozenset(
    words(
        "it they he she this that these those there here who which what when where why how if whether because although "
        "both none nobody nothing others some many most few one such another please also then so but and or not no "
        "her his their its i as with by from at in on for of to while since until after before"
    )
)
_IN_NO_SUBJECT = frozenset(
    words("who which that when where if because than whether whoever whose while is are was were")
)
_LEADING = re.compile(
    r"(?P<leading>(?:After|In|On|For|Before|Within|During|At|From|If|When|Until|Outside|Without|As)\b[^,;:]{3,60}?),? "
    r"(?P<clause>(?:you|we|they|I)\b.*)"
    r"|(?P<before>(?:After|In|On|For|Before|Within|During|At|From|If|When|Until|Outside|Without|As)\b[^,;:]{3,60}?), "
    r"(?P<after>(?:you|we|the|a|an|all|each|every)\b.*)"
)
_DETERMINERS = frozenset(words("the a an all each every any no my your our their its some this that these those"))
_ME = {"you": "I", "your": "my", "yours": "mine", "yourself": "myself", "we": "you", "our": "your", "us": "you"}

_NUMBER_WORDS = frozenset((*SPELLED, *TENS, "hundred", "thousand", "million", "billion", "half"))
_ENGLISH_NUMBER = r"(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen"
_ENGLISH_NUMBER += (
    r"|seventeen|eighteen|nineteen|(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)(?:-[a-z]+)?)"
)
_DIGITS = r"\d[\d,.]*(?:\d|(?<=\d))"
_NUMBER = rf"(?:{_DIGITS}|\d|{_ENGLISH_NUMBER})(?: (?:hundred|thousand|million|billion))?(?: and a half)?"
_MONTH = r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_BOUND = (
    r"(?P<bound>at most|at least|up to|no more than|more than|less than|over|under|about|around|nearly|exactly|only) "
)
_PREPOSITION = r"(?:(?P<preposition>in|on|at|since|until|by|from|before|after|within|for|every|to|of|with) )?"
_FACTS: tuple[tuple[str, str], ...] = (
    (
        "money",
        rf"(?:[€$£]\s?{_DIGITS}(?: (?:million|billion))?|{_NUMBER} (?:euros?|dollars?|pounds?|cents?|EUR|USD|GBP))",
    ),
    ("percent", rf"{_NUMBER}(?: ?%| percent| per cent)"),
    (
        "date",
        rf"(?:\d{{1,2}} {_MONTH}(?: \d{{4}})?|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?(?:,? \d{{4}})?|{_MONTH} \d{{4}}"
        r"|\d{4}-\d{2}-\d{2})",
    ),
    ("year", r"(?<=in )(?:1[5-9]|20)\d\d"),
    ("month", rf"(?<=in ){_MONTH}"),
    ("time", r"\d{1,2}(?::\d{2})(?: ?[ap]\.?m\b\.?)?"),
    (
        "count",
        rf"{_NUMBER} (?:(?!(?:without|with|for|in|on|at|and|or)\b)[a-z]+(?:-[a-z]+)? ){{0,2}}?"
        r"(?!(?:is|was|as|this|less|plus|us|its|has)\b)[a-z]{2,}s(?![\w'])(?: of (?:[a-z]+ )?[a-z]+)?",
    ),
    ("person", r"(?<=by )[A-Z][\w'’-]+ [A-Z][\w'’-]+(?: [A-Z][\w'’-]+)?(?! \d)"),
    ("name", r"(?<=called )[A-Z][\w'’-]+(?: [A-Z0-9][\w'’-]*){0,3}|(?<=named )[A-Z][\w'’-]+(?: [A-Z0-9][\w'’-]*){0,3}"),
)
_DEFINITION = re.compile(r"(?P<subject>[^,;:.]{2,60}?) (?P<verb>is|are) (?P<what>(?:a|an|the name of) .{8,})")
_IS_PERSON = re.compile(r"(?P<subject>[^,;:.]{3,60}?) is (?P<name>[A-Z][\w'’-]+ [A-Z][\w'’-]+)(?=[,.;]|$)")
_CLAUSE_END = re.compile(r"[;:]|, (?:and|but|or|so|which|who|where|while|because|though)\b|,| – | — |\(|\)")
_HAVE = {"has": "does", "have": "do", "had": "did"}
_AND_VERB = re.compile(rf" and (?=(?:{'|'.join(sorted(_AUXILIARIES))})\b)")
_TRAILING_ADVERB = re.compile(r"\b(?:just|approximately|approximate|roughly|currently|now|also|already|only)$")
_NO_END = re.compile(
    rf"\b(?:{'|'.join(sorted(_DETERMINERS))}|across|into|onto|over|under|with|of|than|as|and|or|between|from)$|,$"
)
_CLAUSE_WITHIN = re.compile(r"\b(?:who|which|that|when|if|than|where|involving)\b|[,;:()\"“”]")
_POINTS_BACK = re.compile(r"\b(?:him|her|it|them|there|this|these|those|its|their|his)\b")
_PARTICIPLE = re.compile(
    r"(?:\w+(?:ed|en|wn)|held|led|made|kept|run|won|sold|built|found|taught|sent|paid|bought|set)\b"
)
_KEY_VALUE = re.compile(r"(?:[-*+•]\s+)?(?P<key>[A-Z][\w /'-]{2,40}?)\s*[:：]\s+(?P<value>\S.{0,80})")
_TABLE_ROW = re.compile(r"\s*\|(.+)\|\s*")
_TABLE_RULE = re.compile(r"[\s|:-]+")
_ENDS_OPEN = re.compile(r"\b(?:within|until|by|for|from|to|at|in|on|after|before)$", re.I)
_OF_PARTICIPLE = re.compile(r"(?:\w+ed|kept|held|paid|sent|made|run|given|taken)(?: \w+)?", re.I)

_PAST = {
    "begin": "began", "become": "became", "bring": "brought", "build": "built", "buy": "bought", "choose": "chose",
    "come": "came", "cost": "cost", "cut": "cut", "draw": "drew", "fall": "fell", "fight": "fought", "find": "found",
    "get": "got", "give": "gave", "go": "went", "grow": "grew", "have": "had", "hit": "hit", "hold": "held",
    "keep": "kept", "know": "knew", "lead": "led", "leave": "left", "let": "let", "lie": "lay", "lose": "lost",
    "make": "made", "mean": "meant", "meet": "met", "pay": "paid", "put": "put", "read": "read", "rise": "rose",
    "run": "ran", "see": "saw", "sell": "sold", "send": "sent", "set": "set", "speak": "spoke", "spend": "spent",
    "stand": "stood", "take": "took", "teach": "taught", "tell": "told", "win": "won", "write": "wrote",
}  # fmt: skip
_VERBS = words(
    "accept accommodate add advance affect agree allow announce appear apply arrive ask assess attract award "
    "begin become belong borrow bring build buy call carry cause charge choose claim close collect come "
    "complete comprise compete consist contain contribute cost count cover create cut decide defeat defend "
    "deliver depend design destroy develop die discover draw drop earn employ enable end enjoy ensure enter "
    "establish exceed expire explore extend face fall fight find finish follow form found gain generate get "
    "give go grow handle have help hire hit hold host include increase introduce invent invest invite join keep "
    "know land last launch lead learn leave let lie limit live lose make manage marry mean measure meet merge "
    "migrate move need offer open operate order own pay perform persuade play possess prevent produce promise "
    "protect provide publish put reach read receive record reduce refuse release remain replace report "
    "represent require retain return rise run save score see sell send serve set settle show sign speak spend "
    "stand start stay stop study suffer supply support take teach tell train travel treat use visit wait want "
    "weigh win work write wear yield"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A question with its answer, drafted from documents.

    `passages`: the ids of the documents that hold the answer; empty where none does. `sentence`: what states it, word
    for word. `topic`: the document and heading that it is about.
    """

    question: str
    answer: str
    kind: QuestionKind
    passages: tuple[str, ...]
    sentence: str
    topic: str

    def under_heading(self) -> Draft:
        """Return the draft with the heading that it is about before the question."""
        heading = self.topic.rpartition(_BELOW)[2]
        return replace(self, question=f"{heading}: {self.question[0].lower()}{self.question[1:]}")


class _Verb(NamedTuple):
    base: str
    form: Literal["s", "base", "past"]


class _Spelling:
    """Tells whether the word that begins a sentence would be written with a capital within one."""

    def __init__(self, sentences: Iterable[Passage]) -> None:
        self._small, self._names = Counter[str](), Counter[str]()
        for one in sentences:
            for word in re.findall(r"(?<=[\w,;] )[^\W\d_][\w'’-]*", one.text):
                (self._small if word[0].islower() else self._names)[word.casefold()] += 1

    def is_name(self, tokens: Sequence[str]) -> bool:
        """True if the first of these words is a name, as far as the other sentences show it."""
        first = tokens[0]
        if not first[1:].islower() or (len(tokens) > 1 and tokens[1][0].isupper()):
            return True
        small, named = self._small[first.casefold()], self._names[first.casefold()]
        return named > small if small or named else not first.endswith(("s", "ed", "ing", "one"))


class _Fact(NamedTuple):
    kind: str
    text: str
    start: int
    end: int
    preposition: str
    bound: str
    before: int  # where preposition and bound begin


def _forms() -> dict[str, list[_Verb]]:
    found: dict[str, list[_Verb]] = {}
    for base in _VERBS:
        third = (
            "has"
            if base == "have"
            else base[:-1] + "ies"
            if re.search(r"[^aeiou]y$", base)
            else base + ("es" if re.search(r"(?:s|x|z|ch|sh|o)$", base) else "s")
        )
        past = _PAST.get(base) or (
            base + "d" if base.endswith("e") else base[:-1] + "ied" if re.search(r"[^aeiou]y$", base) else base + "ed"
        )
        for form, text in (("base", base), ("s", third), ("past", past)):
            found.setdefault(text, []).append(_Verb(base, form))  # type: ignore[arg-type]
    for doubled, base in (("stopped", "stop"), ("dropped", "drop"), ("limited", "limit")):
        found.setdefault(doubled, []).append(_Verb(base, "past"))
    return found


_VERB_FORMS = _forms()


def draft_questions(documents: Sequence[Document], sentences: Iterable[Passage], unknown: str) -> Iterator[Draft]:
    """Yield the questions that the sentences of documents answer, in reading order; then those that compare two
    documents, and those that are not answered, whose answer is `unknown`.

    `sentences`: those of `documents`, by `chunk_document(document, words=SENTENCE)`.
    """
    documents = [one for one in documents if not is_of_changes(one.title, one.id)]
    kept = {one.id for one in documents}
    held = [one for one in sentences if one.document in kept]
    spelling = _Spelling(held)
    for one in held:
        plain = plain_text(one.text)
        if plain and can_answer(one.text) and not _TABLE_ROW.match(one.text):
            for question, answer in _of_sentence(plain, spelling):
                yield Draft(
                    question=question,
                    answer=answer,
                    kind="one passage",
                    passages=(one.document,),
                    sentence=one.text,
                    topic=topic_of(one.document, one.path),
                )
    values = [value for value in _stated_values(documents) if value.key.split()[0].casefold() not in _NO_KEYS]
    yield from map(_of_value, values)
    yield from _comparisons(values)
    yield from _without_answer(values, unknown)


def topic_of(document: str, path: Sequence[str]) -> str:
    """Return the name of the topic of a document's section: the document and the headings above."""
    return _BELOW.join((document, *path))


# --- sentences ---------------------------------------------------------------------------------------------------


def _of_sentence(sentence: str, spelling: _Spelling) -> Iterator[tuple[str, str]]:
    """Yield the questions of a sentence with their answers: at most one for each clause."""
    if len(sentence.split()) > 45 or sentence.endswith(("?", ":")):
        return
    found = _IS_PERSON.match(sentence)
    if found and (subject := _subject(found["subject"], spelling)):
        yield f"Who is {subject}?", found["name"]
        return
    for clause in _clauses(sentence):
        asked = _of_clause(clause, spelling)
        if asked:
            yield asked
            return
    found = _DEFINITION.match(sentence)
    if found and len(found["subject"].split()) <= _DEFINED_WORDS and not re.search(r"\d", found["subject"]):
        subject = _subject(found["subject"], spelling)
        named = subject and (subject[0].isupper() or subject.split()[0] in ("a", "an"))
        if named and len(found["what"].split()) >= 4:
            yield f"What {found['verb']} {subject}?", _CLAUSE_END.split(found["what"].rstrip("."))[0].strip()


def _clauses(sentence: str) -> Iterator[str]:
    """Yield the clauses of a sentence; one that begins with its verb gets the subject of the clause before it."""
    text = sentence.rstrip(".!")
    leading = _LEADING.fullmatch(text)
    if leading:  # "After six years you receive two days" is asked as "you receive two days after six years"
        clause = _CLAUSE_END.split(leading["clause"] or leading["after"])[0]
        first = leading["leading"] or leading["before"]
        yield f"{clause} {first[0].lower()}{first[1:]}"
        return
    before = ""
    for part in re.split(r"; |, (?:and|but) | and (?=[a-z]+s\b )", text):
        words_in = part.split()
        verb = _VERB_FORMS.get(words_in[0].casefold(), []) if words_in else []
        if before and any(one.form == "s" for one in verb):
            part = f"{before} {part}"
        else:
            place = _verb_place(part)
            before = " ".join(part.split()[: place[0]]) if place else ""
        yield part


def _of_clause(clause: str, spelling: _Spelling) -> tuple[str, str] | None:
    """Return the question of a clause and its answer: subject and verb change places, and the fact is asked for."""
    place = _verb_place(clause)
    if place is None:
        return None
    index, verb = place
    tokens = clause.split()
    subject = _subject(" ".join(tokens[:index]), spelling)
    rest = " ".join(tokens[index + 1 :])
    fact = _fact(rest)
    if subject is None or fact is None:
        return None
    before = _TRAILING_ADVERB.sub("", rest[: fact.before].strip()).strip()
    after = _AND_VERB.split(_CLAUSE_END.split(rest[fact.end :])[0].strip(" ."))[0]
    auxiliary, main = _auxiliary(tokens[index].casefold(), verb, rest)
    if subject == "I":
        auxiliary = {"are": "am", "were": "was"}.get(auxiliary, auxiliary)
    is_copula = auxiliary in ("is", "are", "was", "were", "am")
    asked = _asked_for(fact)
    if asked is None or not _can_be_asked(before, after) or not _fits(fact, before, is_copula):
        return None
    if fact.kind == "count" and re.match(r"(?:after|before|from|ahead|earlier|later)\b", after):
        asked, after = f"{asked} {_swapped(after)}", ""
    parts = (asked, auxiliary, subject, main, _as_object(before), _swapped(after), _tail(fact))
    question = " ".join(filter(None, parts))
    answer = f"every {fact.text}" if fact.preposition == "every" else fact.text
    return (f"{question[0].upper()}{question[1:]}?", answer) if _reads_well(question) else None


def _auxiliary(word: str, verb: _Verb | None, rest: str) -> tuple[str, str]:
    """Return the auxiliary that a question begins with, and the verb after its subject, which may be none."""
    if verb is not None:
        return {"s": "does", "base": "do", "past": "did"}[verb.form], verb.base
    if word in _HAVE and not re.match(r"(?:been|had|become|won|made|\w+ed)\b", rest):
        return _HAVE[word], "have"
    return word, ""


def _can_be_asked(before: str, after: str) -> bool:
    """True if the words around a fact make a question without the sentences around it."""
    if re.match(r"(?:and|or|to|of|[-–/])\b", after) or re.match(r"(?:called|named|known|\w+ed)\b", after):
        return False  # one of several, a range, or a clause of its own
    if _NO_END.search(before) or _CLAUSE_WITHIN.search(before) or _POINTS_BACK.search(f"{before} {after}"):
        return False
    return len(before.split()) + len(after.split()) <= _REST_WORDS


def _fits(fact: _Fact, before: str, is_copula: bool) -> bool:
    """True if a clause whose verb is a form of "be", or another, can be asked for a fact of this kind."""
    if fact.kind == "name":
        return is_copula and before in ("called", "named")
    if fact.kind == "person":
        return is_copula and _PARTICIPLE.match(before) is not None
    if not is_copula:
        return True
    if fact.kind == "count":
        return bool(before or fact.preposition)
    return not (fact.kind == "money" and before and fact.bound)


def _verb_place(clause: str) -> tuple[int, _Verb | None] | None:
    """Return the place of the clause's verb; None beside it for an auxiliary, which the question begins with."""
    tokens = clause.split()
    for index in range(1, min(len(tokens) - 1, _SUBJECT_WORDS + 1)):
        token, before = tokens[index].casefold(), tokens[index - 1].casefold()
        if before.endswith((",", ":")) or not token.isalpha():
            return None
        if token in _AUXILIARIES:
            return index, None
        if before in _DETERMINERS or before in _NO_SUBJECT:
            continue
        follows = tokens[index + 1].casefold()
        for verb in _VERB_FORMS.get(token, ()):
            plural = before in ("you", "we", "people") or (
                before.endswith("s") and not before.endswith(("ss", "us", "is"))
            )
            fits = {"s": not plural, "base": plural, "past": True}[verb.form]
            is_noun = (
                follows in _AUXILIARIES
                or follows in ("of", "who", "which", "that")
                or (verb.form == "past" and follows in ("by", "in", "through") and _has_later_verb(tokens[index + 1 :]))
            )
            if fits and not is_noun:
                return index, verb
    return None


def _has_later_verb(tokens: Sequence[str]) -> bool:
    return any(token in _AUXILIARIES for token in tokens)


def _subject(text: str, spelling: _Spelling) -> str | None:
    """Return a subject as it stands within a question; None for one that needs the sentence before it, or is none."""
    tokens = text.split()
    low = [token.casefold() for token in tokens]
    if not tokens or len(tokens) > _SUBJECT_WORDS or low[0] in _NO_SUBJECT or set(low) & _IN_NO_SUBJECT:
        return None
    if re.search(r"[,;:()\"“”]", text) or low[0] in _NUMBER_WORDS or low[0][0].isdigit():
        return None
    if len(tokens) == 1 and (low[0] in _DETERMINERS or low[0].endswith("ly") or low[0] in _VERBS):
        return None
    if low[0] in _DETERMINERS or low[0] in _ME or not spelling.is_name(tokens):
        tokens[0] = low[0]
    return _swapped(" ".join(tokens))


def _swapped(text: str) -> str:
    """Return a text as who asks would say it: you is I, and we is you."""
    return " ".join(_ME.get(token, token) for token in text.split())


def _as_object(text: str) -> str:
    """Return the words after a verb as who asks would say them: you is me there."""
    return _swapped(re.sub(r"^us\b", "you", re.sub(r"^you\b", "me", text)) if text != "us" else "you")


def _fact(rest: str) -> _Fact | None:
    """Return the first fact of the rest of a clause, with the preposition and the bound before it."""
    found: list[_Fact] = []
    for kind, pattern in _FACTS:
        match = re.search(rf"(?<![\w.,'-]){pattern}(?![\w'’-])", rest)
        if match is None:
            continue
        text, start = match.group(), match.start()
        lead = re.search(rf"(?:^|(?<=\s)){_PREPOSITION}(?:{_BOUND})?$", rest[:start])
        preposition, bound = (lead["preposition"] or "", lead["bound"] or "") if lead else ("", "")
        begin = lead.start() if lead else start
        found.append(_Fact(kind, text, start, match.end(), preposition, bound, begin))
    return min(found, key=lambda fact: (fact.start, -len(fact.text)), default=None)


def _asked_for(fact: _Fact) -> str | None:
    """Return the words that ask for a fact."""
    lead = fact.preposition if fact.preposition in ("until", "since", "before", "after", "within", "by") else ""
    if fact.kind in ("date", "year", "month", "time"):
        when = "what time" if fact.kind == "time" else "when"
        at = "at " if fact.kind == "time" and not lead else ""
        return (
            {"by": "by when", "until": "until when", "since": "since when"}.get(lead, f"{at}{when}")
            if lead in ("", "by", "until", "since")
            else None
        )
    if fact.kind == "money":
        return "how much" if not lead and fact.preposition != "of" else None
    if fact.kind == "percent":
        return "what percentage" if not lead and fact.preposition != "of" else None
    if fact.kind in ("person", "name"):
        return "who" if fact.kind == "person" else "what"
    noun = fact.text.split(" ", 1)[1]
    number = re.match(rf"{_NUMBER} ", fact.text)
    noun = fact.text[number.end() :] if number else noun
    if fact.preposition == "every":
        return "how often" if noun in ("days", "weeks", "months", "years", "hours", "minutes") else None
    up_to = "up to " if fact.bound == "up to" else ""
    inside = {"within": "within ", "for": "for ", "after": "after ", "in": "in ", "with": "with "}.get(
        fact.preposition, ""
    )
    if fact.preposition and not inside:
        return None
    return f"{inside}{up_to}how many {noun}"


def _tail(fact: _Fact) -> str:
    """Return what stands at the end of a question for the fact that is taken out of it."""
    if fact.kind == "person":
        return "by"
    return {"at most": "at most", "at least": "at least", "no more than": "at most"}.get(fact.bound, "")


def _reads_well(question: str) -> bool:
    count = len(question.split())
    return 4 <= count <= MOST_WORDS and not re.search(r"\b(\w+) \1\b|[|`<>]|\s[,.]", question)


# --- tables and values -------------------------------------------------------------------------------------------


class _Value(NamedTuple):
    """What a document states of something: in a row of a table, or as `name: value`."""

    entity: str
    key: str
    value: str
    document: str
    topic: str
    sentence: str


def _stated_values(documents: Sequence[Document]) -> Iterator[_Value]:
    """Yield what documents state. `name: value` counts where several sections have this name once each, as forms have;
    a list of terms or of changes has not."""
    pairs: list[_Value] = []
    for document in documents:
        for section in document.sections:
            topic = topic_of(document.id, section.path)
            yield from _of_tables(section.text, document, topic)
            entity = _cell(section.path[-1] if section.path else document.title)
            lines = [line for line in section.text.splitlines() if not line.lstrip().startswith("|")]
            found = [(line, match) for line in lines if (match := _KEY_VALUE.fullmatch(_cell(line)))]
            times = Counter(match["key"].casefold() for _, match in found)
            for line, match in found:
                key, value = match["key"].strip(), match["value"].rstrip(".")
                if times[key.casefold()] == 1 and len(key.split()) <= 4 and _is_value(value) and _is_entity(entity):
                    pairs.append(_Value(entity, key, value, document.id, topic, line.strip()))
    shared = Counter(value.key.casefold() for value in pairs)
    yield from (value for value in pairs if shared[value.key.casefold()] > 1)


def _of_tables(text: str, document: Document, topic: str) -> Iterator[_Value]:
    """Yield the cells of the tables in Markdown of a section, below their headers."""
    header: list[str] = []
    for line in text.splitlines():
        row = _TABLE_ROW.fullmatch(line)
        if row is None:
            header = []
        elif not _TABLE_RULE.fullmatch(line):
            cells = [_cell(cell) for cell in row[1].split("|")]
            if not header:
                header = cells
            elif _is_entity(cells[0]):
                for key, value in zip(header[1:], cells[1:], strict=False):
                    if key and _is_value(value):
                        yield _Value(cells[0], key, value, document.id, topic, line.strip())


def _cell(text: str) -> str:
    """Return the text of a cell or a line without marks of emphasis and code, and the targets of links."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)|\*\*|`|\s*\{[#:][^}]*\}", lambda match: match[1] or "", text).strip()


def _is_entity(text: str) -> bool:
    return bool(_LETTER.search(text)) and len(text.split()) <= 8 and not re.search(r"[\[\]{}<>|\"]|\?$", text)


def _is_value(text: str) -> bool:
    if text.casefold().strip("*\\ ") in _YES_NO:
        return False
    return (
        bool(re.search(r"\w", text)) and len(text.split()) <= _VALUE_WORDS and not re.search(r"https?:|[@{}<>]", text)
    )


def _of_value(value: _Value) -> Draft:
    return Draft(
        question=_value_question(value),
        answer=value.value,
        kind="one passage",
        passages=(value.document,),
        sentence=value.sentence,
        topic=value.topic,
    )


def _value_question(value: _Value) -> str:
    key = value.key[0].lower() + value.key[1:] if value.key[1:].islower() else value.key
    if key in _OF_MEANING:
        return _OF_MEANING[key].format(value.entity)
    if _OF_PARTICIPLE.fullmatch(key) or _ENDS_OPEN.search(key):
        return f"{value.entity[0].upper()}{value.entity[1:]}: {key}?"
    return f"What is the {key} for {value.entity}?"


_OF_MEANING = {
    "meaning": "What does {} mean?",
    "description": "What is {}?",
    "purpose": "What is {} for?",
    "use": "What is {} used for?",
}
_LETTER = re.compile(r"[^\W\d_]")
_NO_KEYS = frozenset(words("who what when where how why which the a an never always"))
_YES_NO = frozenset(words("yes no true false none optional required - ✓ ✗ x"))
_QUANTITY = re.compile(rf"({_DIGITS}|\d)\s*([^\d\s].*)?")


def _comparisons(values: Sequence[_Value]) -> Iterator[Draft]:
    """Yield questions that compare two documents by an amount or a date that both state under one name."""
    by_key: dict[str, list[tuple[float | str, str, _Value]]] = {}
    for value in values:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", value.value):
            by_key.setdefault(value.key.casefold(), []).append((value.value, "date", value))
        elif found := _QUANTITY.fullmatch(value.value):
            number = float(found[1].replace(",", "")) if re.fullmatch(r"[\d,]+(?:\.\d+)?", found[1]) else None
            if number is not None:
                by_key.setdefault(value.key.casefold(), []).append((number, found[2] or "", value))
    for listed in by_key.values():
        for (one, unit, first), (other, other_unit, second) in pairwise(listed):
            if unit != other_unit or one == other or first.entity == second.entity or type(one) is not type(other):
                continue
            key = first.key[0].lower() + first.key[1:]
            larger = first if one > other else second  # type: ignore[operator]
            more = "later" if unit == "date" else "larger"
            yield Draft(
                question=f"Which has the {more} {key}, {first.entity} or {second.entity}?",
                answer=larger.entity,
                kind="two passages",
                passages=tuple(dict.fromkeys((first.document, second.document))),
                sentence=f"{first.sentence}\n{second.sentence}",
                topic=first.topic,
            )


def _without_answer(values: Sequence[_Value], unknown: str) -> Iterator[Draft]:
    """Yield questions for what is stated of a thing like this one, and not of this one."""
    stated: dict[str, dict[str, _Value]] = {}
    with_key: dict[str, list[str]] = {}
    for value in values:
        stated.setdefault(value.entity, {})[value.key.casefold()] = value
        with_key.setdefault(value.key.casefold(), []).append(value.entity)
    for entity, own in stated.items():
        alike = (other for key in own for other in with_key[key][:_LOOKED_AT] if other != entity)
        other = next((other for other in alike if len(stated[other].keys() & own.keys()) >= _SHARED_KEYS), None)
        missing = sorted(stated[other].keys() - own.keys()) if other else []
        if other and missing:
            yield Draft(
                question=_value_question(stated[other][missing[0]]._replace(entity=entity)),
                answer=unknown,
                kind="not answered",
                passages=(),
                sentence="",
                topic=next(iter(own.values())).topic,
            )
