"""The metric `contains`: an answer must state the fact of its reference, and no other fact in its place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, groupby, pairwise
from typing import Literal

from trimtab.measurement.agreement import amount_of, may_agree, says_less, states_same
from trimtab.measurement.facts import PREPOSITIONS, TITLES, read
from trimtab.measurement.languages import OWNERS, eastern, is_untried
from trimtab.measurement.numerals import UNITS, words
from trimtab.measurement.stances import (
    DOWN,
    MEASURED,
    ROLES,
    UNIVERSAL,
    UP,
    asked_bounds,
    asked_end,
    asks_for_former,
    negates,
)
from trimtab.measurement.tokens import Stance, TextToken

TextTokens = Sequence[TextToken]
Match = Literal["right", "wrong", "unsure"]
_COORDINATORS = ("or", "and", "nor")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_FIRST_SENTENCES = 4  # of an answer, in which the fact is looked for before what explains it
_CORRECTS = frozenset(
    words("or no not but actually sorry correction rather wait instead however yes fact really indeed")
)
_SAYING = frozenset(words("not you we i they he she there this that may can must do does could should"))
_HEDGES = frozenset(words("perhaps maybe possibly vielleicht moglicherweise eventuell quizas"))
_COMPARING = frozenset(words("to after before against than like under without near"))
_ENDS = ("start", "stop")  # of a range
_LONGEST_LIST = 50  # parts; a longer reference is compared as it stands
_DETERMINERS = frozenset(("the", "our", "a", "an", "its", "their", "my", "your"))
_NO_ITEM = frozenset(
    words("i we you he she they it if when as with without not no so because which who also or and so")
)
_MOMENTS = ("date", "time")
_BOUNDS = (*UP, *DOWN)
_TELLING = frozenset(words("is was are were by"))  # before what a sentence tells
_NEAR = 4  # words that "or" joins
_CODE = re.compile(r"(?=.*[A-Z])(?=.*[0-9])[A-Z0-9]+(?:[ -][A-Z0-9]+)*|0[0-9]+(?:[ -][0-9]+)*")
_CODE_PIECES = re.compile(r"[A-Z]+|[0-9]+")
_BEGINNING = 4  # letters by which words of an answer and a question are compared
_ASKING_WORDS = PREPOSITIONS | set(
    words(
        "what which when where whom whose does much many have that this your they them their there will would "
        "should must the are was were can has had how who why did may you our its one all any and not"
    )
)
_SUBORDINATING = PREPOSITIONS - {"to"}  # "3 years to 5 years" is a range or a change
_WORDS_BEFORE_NUMBER = 12  # that are looked at behind an "and"
_ITEM = 2  # most words of one more thing in a list, "blue and pale yellow"; more words explain


def match(answer: str, reference: str, question: str = "") -> Match:
    """Return "right" if the answer states the fact of the reference and no other in its place; "unsure" if its words do
    not decide.

    1. Every number, ordinal, date and time of day of the reference stands in the answer, wherever: "thirty months" is
       "30 months", "2 May 2026" is "2026-05-02", "2:30 pm" is "14:30", 24 months are 2 years. A unit that the
       reference has must stand too, unless the question names it. A date or time may say more than the reference
       ("May" in "2 May", "1943" in "7 January 1943"), not less. "10:00" is 10 am and "22:00" is not. Its bounds are the
       same: "at least 30 days" is not "30 days", unless the question asks for a bound or states it ("under what
       price"). Several amounts keep their words: "90 cm wide and 180 cm long", in any order. Where the question asks
       when something starts, or until when, the first or last end of a range is meant.
    2. Its other words stand in the answer as one run, without case, accents, punctuation, articles, titles and words
       such as "of" and "at"; a name also without its middle names, a code with other separators; the parts of a list
       in any order, and nothing more beside them.
    3. What the answer denies, leaves out or tells as former it does not give (see stances.py): "not 112 euros",
       "everyone but Ada". Nor does "Ada's deputy" give Ada.
    4. There is no other of the same kind: no number with the same unit (with none, where the reference has none), no
       date or time that disagrees, no other ordinal, weekday or code such as B-17, and no name that "or" joins. "112 or
       158 euros" does not
       give "112 euros", "112 euros for 2 nights" does. In "opens at 6:10 and closes at 21:00" the words that one part
       alone shares with the question tell which is meant. Sentences after the one with the fact explain, if they have
       words that are new. A name after
       a preposition which does not stand before the reference explains too: "Idris Valcourt from Payroll", but "to Ada
       Quill or to Idris Valcourt". An answer that opens with the reference word for word, with nothing joined to it,
       goes on about it: others of the kind explain behind a preposition, "46 years with 14% of 65 years and older".
    5. Numbers, dates and names that the question holds may be repeated.

    Unsure: another of the same kind in another clause or part, when the question's words do not tell which one is
    meant, or behind a reference that opens the answer; the other end of a range of dates or times; other words for a
    reference that is nothing but words; "yes" or "no" asked for and neither said, nor the question said again; a bound
    that the answer leaves out, or has and the reference does not; another name in the sentence; a part of the name, or
    less of a date; "perhaps"; what stands only behind "like" or "than". Words of numbers, months, units, denials and
    bounds are read in English, German, French, Spanish, Chinese and Japanese; an answer in another language is unsure.
    """
    asked = read(question)
    said = read(_respelled(answer, reference))
    if _bounded_otherwise(said, read(reference)):
        return "wrong"
    wanted = _years_as_dates(_as_asked(read(reference), asked), said)
    given = _as_asked(said if any(token.bound in _ENDS for token in wanted) else _end_meant(said, asked), asked)
    if not wanted:
        return "right" if answer.split() == reference.split() else "wrong"
    if list(map(_fact, given)) == list(map(_fact, wanted)):
        return "right"
    if not given:
        return "wrong"
    if is_untried(answer) or is_untried(reference):
        return "unsure"
    if wanted[0].value in ("yes", "no"):
        return _polar(given, wanted, asked)
    for sought in (wanted, *_shorter_names(wanted)):
        for part in _beginnings(given, asked):
            if _holds(part, sought, asked):
                found: Match = "wrong" if _exchanged(part, sought) else _alone(part, sought, asked)
                known = (*wanted, *asked)
                aside = _hedges(part, known) or _only_compared(part, sought, known)
                return "unsure" if found == "right" and aside else found
    return _missed(given, wanted, asked)


def disagrees(answer: str, references: Sequence[str], question: str = "") -> bool:
    """True if the numbers, dates or times of the answer differ from those of every reference.

    Only where each reference has some and the answer gives some: an answer without any is silent, and does not
    disagree.
    """
    given, asked = read(answer), read(question)
    if not any(token.kind in MEASURED for token in given):
        return False
    for reference in references:
        measured = tuple(token for token in read(reference) if token.kind in MEASURED)
        if not measured or (_measured_hold(given, measured, asked) and not any(_others(given, measured, asked))):
            return False
    return bool(references)


def _as_asked(tokens: TextTokens, asked: TextTokens) -> TextTokens:
    """Return the tokens with denied ones as given if the question asks for what is not so, and former ones if it asks
    for what was so."""
    changed: dict[Stance, Stance] = {}
    if negates(asked):
        changed["denied"] = "given"
    if asks_for_former(asked) and any(token.stance == "former" for token in tokens):
        changed |= {"former": "given", "given": "former"}
    if any(token.value == "whose" for token in asked):
        changed["related"] = "given"
    free = asked_bounds(asked)
    return tuple(
        replace(token, stance=changed.get(token.stance, token.stance), bound="" if token.bound in free else token.bound)
        if token.stance in changed or token.bound in free
        else token
        for token in tokens
        if token.value not in TITLES or len(tokens) == 1
    )


def _years_as_dates(wanted: TextTokens, said: TextTokens) -> TextTokens:
    """Return a text with a bare number that is the year of a date in the other text as that year."""
    years = {token.value[:4] for token in said if token.kind == "date"}
    return tuple(
        replace(token, kind="date", value=f"{token.value}-??-??")
        if token.kind == "number" and token.value in years and not token.unit and not token.counted
        else token
        for token in wanted
    )


def _bounded_otherwise(said: TextTokens, wanted: TextTokens) -> bool:
    """True if the answer bounds an amount of the reference from the other side: "at most 14 days" for at least 14."""
    sides = {(one.value, one.bound in UP) for one in said if one.bound in (*UP, *DOWN)}
    bounds = [(one.value, one.bound in UP) for one in wanted if one.bound in (*UP, *DOWN)]
    return any((value, not up) in sides and (value, up) not in sides for value, up in bounds)


def _end_meant(said: TextTokens, asked: TextTokens) -> TextTokens:
    """Return the answer with only that end of its ranges that the question asks for; unchanged if the question does not
    say which."""
    end = asked_end(asked, said)
    if not end:
        return said
    return tuple(
        replace(token, bound="" if token.bound == end else token.bound)
        for token in said
        if token.bound not in _ENDS or token.bound == end
    )


def _shorter_names(wanted: TextTokens) -> list[TextTokens]:
    """Return the name alone from "the Head of Support, NAME", and one without its middle names, but for initials."""
    if len(wanted) > 2 and all(one.capital and len(one.value) > 1 for one in wanted):
        return [(wanted[0], wanted[-1])]
    clauses = [tuple(part) for _, part in groupby(wanted, key=lambda token: token.clause)]
    if len(clauses) < 2 or not any(token.value in ROLES for token in wanted):
        return []
    return [part for part in clauses if all(one.capital and one.value not in ROLES for one in part)]


def _respelled(answer: str, reference: str) -> str:
    """Return the answer with a code as the reference writes it: "TX 4410" and "TX4410" are TX-4410."""
    if not _CODE.fullmatch(reference):
        return answer
    pieces = _CODE_PIECES.findall(reference)
    return re.sub(rf"(?<![^\W_]){'[ -]?'.join(pieces)}(?![^\W_])", lambda _: reference, answer, flags=re.IGNORECASE)


def _hedges(given: TextTokens, known: TextTokens) -> bool:
    """True if the answer does not stand by what it says: "perhaps Ada"."""
    return not {token.value for token in given}.isdisjoint(_HEDGES.difference(token.value for token in known))


def _only_compared(given: TextTokens, wanted: TextTokens, known: TextTokens) -> bool:
    """True if the answer names the reference's words only behind "like", "than" and others that the question has not:
    "she reports to Ada", "it looks like slate"."""
    values = {token.value for token in known}
    first = next((token for token in wanted if not token.link), None)
    if first is None or first.kind != "word" or "where" in values:
        return False
    before = {_before(given, place) for place, token in enumerate(given) if token.value == first.value}
    return bool(before) and before <= _COMPARING - values


def _exchanged(given: TextTokens, wanted: TextTokens) -> bool:
    """True if the answer gives amounts of the reference to each other's words: "90 cm long and 180 cm wide"."""
    owners: dict[str, set[str]] = {}
    for amount, said in _amounts_with_words(wanted):
        for word in said:
            owners.setdefault(word, set()).add(amount)
    amounts = set().union(*owners.values())
    if len(amounts) < 2:
        return False
    for amount, said in _amounts_with_words(given):
        claimed = [owners[word] for word in said if word in owners and len(owners[word]) == 1]
        if amount in amounts and claimed and not any(amount in one for one in claimed):
            return True
    return False


def _amounts_with_words(tokens: TextTokens) -> Iterator[tuple[str, set[str]]]:
    """Yield each number that stands alone between commas and coordinators, with the words beside it."""
    numbers: list[str] = []
    beside: set[str] = set()
    for token in (*tokens, None):
        if token is None or token.fresh or token.value in _COORDINATORS:
            if len(numbers) == 1:
                yield numbers[0], beside
            numbers, beside = [], set()
        if token is not None and token.kind == "number":
            numbers.append(token.value)
        elif token is not None and not token.link and token.value not in (*_COORDINATORS, *PREPOSITIONS):
            beside.add(token.value)


def _beginnings(given: TextTokens, asked: TextTokens) -> Iterator[TextTokens]:
    """Yield the answer up to the end of each of its first sentences, while those that follow only explain, then the
    whole answer."""
    sentences = list(_sentences(given))
    ends = list(accumulate(map(len, sentences)))[:-1]
    known = {token.value for token in asked} | _CORRECTS
    new = []
    for sentence in sentences:
        new.append({token.value for token in sentence if token.kind == "word" and not token.link} - known)
        known |= new[-1]
    explained = len(sentences)
    while explained > 1 and _explains(sentences[explained - 1], new[explained - 1]):
        explained -= 1
    for end in ends[explained - 1 :][:_FIRST_SENTENCES]:
        yield given[:end]
    yield given


def _explains(sentence: TextTokens, new: set[str]) -> bool:
    """True if a sentence after the one with the fact only explains: it is no correction, no answer to a question, no
    bare fact, and has words that are new."""
    first = sentence[0]
    return (
        "?" not in first.mark
        and first.value not in _CORRECTS
        and any(token.value in new and not (token.capital and not token.start) for token in sentence)
        and not all(token.capital for token in sentence)
    )


def _ends_statement(token: TextToken) -> bool:
    return any(mark in token.mark for mark in ".!?") or token.mark.count("\n") > 1


def _polar(given: TextTokens, wanted: TextTokens, asked: TextTokens) -> Match:
    """Match a yes or no: a word of its own, in its clause or at its end, or a sentence that says again what the
    question asks, or denies it. "unsure" for other words."""
    said = {
        _opposite(token.value) if token.denied else token.value
        for place, token in enumerate(given)
        if token.value == "yes"
        or (token.value == "no" and (place + 1 == len(given) or given[place + 1].fresh or _joined(given, place)))
    }
    said = said or _repeated(given, asked)
    if len(said) != 1:
        return "wrong" if said else "unsure"
    if said != {wanted[0].value}:
        return "wrong"
    if given[0].value not in said and "yes" in said and any(token.denied for token in given):
        return "unsure"  # "some would say yes, but it is not"
    rest = wanted[1:]
    return "right" if not rest or (_holds(given, rest, asked) and not any(_others(given, rest, asked))) else "wrong"


def _repeated(given: TextTokens, asked: TextTokens) -> set[str]:
    """Return the yes or no of "certainly not" and of a first sentence that has no words but the question's; empty for
    another sentence."""
    first = next(_sentences(given))
    if first[-1].value == "not" or any(one.value == "not" and two.fresh for one, two in pairwise(first)):
        return {"no"}
    echo = _beginnings_of(asked)
    told = [token for token in first if not (token.link or token.soft or token.value in _SAYING)]
    if len(told) < 2 or not all(_beginning(token.value) in echo for token in told) or negates(asked):
        return set()
    return {"no"} if negates(first) else {"yes"}


def _sentences(given: TextTokens) -> Iterator[TextTokens]:
    """Yield the sentences of an answer."""
    ends = [place for place, token in enumerate(given) if place and token.start and _ends_statement(token)]
    for begin, end in pairwise((0, *ends, len(given))):
        yield given[begin:end]


def _opposite(word: str) -> str:
    return "no" if word == "yes" else "yes"


def _joined(given: TextTokens, place: int) -> bool:
    return given[place + 1].value in _COORDINATORS


def _alone(given: TextTokens, wanted: TextTokens, asked: TextTokens) -> Match:
    """Match a text that states the reference: "right" if it gives nothing in its place."""
    if _untold(given, wanted, asked):
        return "unsure"
    rivals = set(_others(given, wanted, asked))
    if not rivals:
        return _alone_in_list(given, wanted, asked)
    values = {token.value for token in wanted if not token.link}
    measured = [token for token in wanted if token.kind in MEASURED]
    own = [
        place
        for place, one in enumerate(given)
        if (one.value in values and one.stance == wanted[0].stance)
        or any(states_same(one, token) for token in measured)
    ]
    others = [place for place, one in enumerate(given) if one in rivals]
    clauses = [token.clause for token in given]
    if _disjoined(given, own, others):
        return "wrong"
    if own and any(_ends_statement(token) for token in given[own[-1] + 1 : others[-1] + 1] if token.start):
        return "unsure"  # a later sentence that does not only explain
    if not _share(clauses, own, others):
        return _meant(given, asked, values, clauses, own, others)
    if all(one.bound in _ENDS and one.kind in _MOMENTS for one in rivals):
        return "unsure"  # the other end of a range
    parts = _parts_of_clauses(given)
    if own and len({parts[place] for place in (*own, *others)}) == 1 and _is_told(given, own, others):
        return "right"
    if any(one.kind == "word" for one in rivals) or _share(parts, own, others):
        return _with_others_behind(given, wanted, others)
    return _meant(given, asked, values, parts, own, others)


def _untold(given: TextTokens, wanted: TextTokens, asked: TextTokens) -> bool:
    """True if Chinese or Japanese characters stand beside those of the reference that nothing explains: no spaces and
    no capitals tell whether they are part of its word, or another name."""
    if not any(eastern(token.value) and not token.link for token in wanted):
        return False
    known = {token.value for token in (*wanted, *asked)}
    last = wanted[-1].value
    return any(
        eastern(token.value)
        and (
            (not token.link and token.value not in known and not token.denied)
            or (token.value in OWNERS and place > 0 and given[place - 1].value == last)
        )
        for place, token in enumerate(given)
    )


def _disjoined(given: TextTokens, own: Sequence[int], others: Sequence[int]) -> bool:
    """True if "or" joins another fact to the reference's, or "and" another amount."""
    joiners = ("or",) if all(given[place].kind == "word" for place in others) else _COORDINATORS
    opening = {token.clause: token.value for token in reversed(given)}
    if any(opening[given[place].clause] in joiners for place in others):
        return True
    near, far = set(own), set(others)
    for place, token in enumerate(given):
        if token.value == "or":
            before, after = (set(range(place - _NEAR, place)), set(range(place + 1, place + _NEAR + 1)))
            if (before & near and after & far) or (before & far and after & near):
                return True
    return False


def _is_told(given: TextTokens, own: Sequence[int], others: Sequence[int]) -> bool:
    """True if the sentence tells the reference's name of what it names besides: "Hamlet's author is Ada Quill", "the
    play by Bram was staged by Ada Quill"; nothing is joined to the name."""
    ends = (own[0] - 1, own[-1] + 1)
    joined = any(given[place].value in _COORDINATORS for place in ends if 0 <= place < len(given))
    named = all(given[place].kind == "word" and given[place].mark != "," for place in (*own, *others))
    return named and not joined and _before(given, own[0]) in _TELLING


def _with_others_behind(given: TextTokens, wanted: TextTokens, others: Sequence[int]) -> Match:
    """Match an answer with other facts of the kind in the reference's own part. If it opens with the reference word
    for word, and nothing is joined to that, it goes on about it: "right" where each of the others follows a
    preposition ("46 years with 14% of 65 years and older"), else "unsure". Another name may be there for any reason.
    """
    otherwise: Match = "unsure" if all(given[place].kind == "word" for place in others) else "wrong"
    said = [place for place, one in enumerate(given) if not one.link]
    sought = [_fact(one) for one in wanted if not one.link]
    opening = said[: len(sought)]
    if not sought or [_fact(given[place]) for place in opening] != sought or not _whole(given[opening[-1]]):
        return otherwise
    joined = [given[place] for place in (opening[-1] + 1, *others) if given[place - 1].value in _COORDINATORS]
    if joined or any(given[place].fresh and "(" not in given[place].mark for place in (opening[-1] + 1, *others)):
        return otherwise
    return "right" if all(_before(given, place) in _SUBORDINATING for place in others) else "unsure"


def _fact(token: TextToken) -> tuple[str, str, str]:
    return token.kind, token.unit, _spoken(token)


def _share(parts: Sequence[int], own: Sequence[int], others: Sequence[int]) -> bool:
    """True if any of the reference's facts and any of their rivals are in the same part."""
    return not {parts[place] for place in own}.isdisjoint(parts[place] for place in others)


def _parts_of_clauses(given: TextTokens) -> list[int]:
    """Return the number of each token's part: a clause is one part, and what "and" joins is another if it has words
    before its numbers.

    "opens at 6:10 | and closes at 21:00", but "112 and 158 euros" are one.
    """
    numbers: list[int] = []
    number = 0
    for place, token in enumerate(given):
        if place and (token.clause != given[place - 1].clause or _begins_part(given, place)):
            number += 1
        numbers.append(number)
    return numbers


def _begins_part(given: TextTokens, place: int) -> bool:
    if given[place].value != "and":
        return False
    for token in given[place + 1 : place + 1 + _WORDS_BEFORE_NUMBER]:
        if token.kind not in ("word", "weekday"):
            return False
        if not token.link and token.value not in PREPOSITIONS:
            return True
    return False


def _meant(
    given: TextTokens, asked: TextTokens, but: set[str], parts: Sequence[int], own: Sequence[int], others: Sequence[int]
) -> Match:
    """Decide which parts the question means: those that alone share a word with it; "unsure" if both do, or neither."""
    here, there = (_shared_with(given, asked, but, parts, places) for places in (own, others))
    if bool(here - there) == bool(there - here):
        return "unsure"
    if here - there:
        return "right"
    return "unsure" if all(given[place].kind == "word" for place in others) else "wrong"


def _shared_with(
    given: TextTokens, asked: TextTokens, but: set[str], parts: Sequence[int], places: Sequence[int]
) -> set[str]:
    """Return the beginnings of the words that the parts at these places share with the question."""
    chosen = {parts[place] for place in places}
    said = {one.value for one, part in zip(given, parts, strict=True) if part in chosen and one.value not in but}
    return _beginnings_of(asked) & set(map(_beginning, said))


def _beginnings_of(asked: TextTokens) -> set[str]:
    return {
        _beginning(token.value)
        for token in asked
        if token.kind in ("word", "weekday") and len(token.value) > 2 and token.value not in _ASKING_WORDS
    }


def _beginning(word: str) -> str:
    return word.removesuffix("s")[:_BEGINNING]


def _missed(given: TextTokens, wanted: TextTokens, asked: TextTokens) -> Match:
    """Return "wrong" or "unsure" for an answer that does not state the reference."""
    loose = [replace(token, bound="") for token in wanted]
    if loose != list(wanted) and not any(token.bound for token in given) and _holds(given, loose, asked):
        return "unsure"  # the reference's bound is left out
    unbound = [replace(token, bound="") if token.bound in _BOUNDS else token for token in given]
    if unbound != list(given) and _holds(unbound, loose, asked) and _alone(unbound, loose, asked) != "wrong":
        return "unsure"  # the answer bounds what the reference gives
    for end in _ENDS:
        one_end = [replace(one, bound="") if one.kind in _MOMENTS and one.bound == end else one for one in given]
        if one_end != list(given) and _holds(one_end, wanted, asked) and _alone(one_end, wanted, asked) != "wrong":
            return "unsure"  # the question does not say which end of a range
    less = _as_little(wanted, given)
    if less != list(wanted) and _holds(given, less, asked):
        return "unsure"  # the answer says less
    said = [token for token in given if token.kind not in MEASURED and not token.link]
    if any(_run(part, said) for part in _parts(wanted)) and len(_parts(wanted)) > 1:
        return "wrong"  # a part of a list is missing
    worded = all(token.kind == "word" and token.stance == "given" for token in wanted) and (
        not _named(wanted) or _partly_named(given, wanted, asked)
    )
    echo = {token.value for token in asked}
    new = any(not token.link and token.value not in echo for token in given)
    return "unsure" if worded and new and not all(token.denied for token in given) else "wrong"


def _as_little(wanted: TextTokens, given: TextTokens) -> list[TextToken]:
    """Return the reference with its facts as the answer gives them, where these agree but say less: no day, no am, "12"
    for "12th"."""
    if len(wanted) > _LONGEST_LIST:
        return list(wanted)
    loose = []
    for token in wanted:
        alike = (one for one in given if token.kind in MEASURED and says_less(one, token))
        loose.append(replace(next(alike, token), bound=token.bound, stance=token.stance))
    return loose


def _partly_named(given: TextTokens, wanted: TextTokens, asked: TextTokens) -> bool:
    """True if the answer has words of a reference with a name, and no other name in their place: a surname alone,
    initials, "Pittsburgh" for the Pittsburgh area."""
    if not all(token.capital or token.link for token in wanted):
        words_of = {token.value for token in wanted if not token.link} - {token.value for token in asked}
        return any(token.value in words_of for token in given if not token.link)
    name = [token.value for token in wanted if not token.link]
    return any(_abbreviates(spoken, name) or _abbreviates(name, spoken) for spoken in _capital_runs(given))


def _capital_runs(given: TextTokens) -> Iterator[list[str]]:
    """Yield the words of each name; a point behind an initial does not end it."""
    run: list[str] = []
    for token in given:
        inside = not token.fresh or (token.mark == "." and bool(run) and len(run[-1]) == 1)
        if run and not (token.capital and token.stance == "given" and inside):
            yield run
            run = []
        if token.capital and token.stance == "given":
            run.append(token.value)
    if run:
        yield run


def _abbreviates(short: Sequence[str], name: Sequence[str]) -> bool:
    """True if each word is one of the name's, or its initial, in the same order, and one of them is no initial."""
    rest = iter(name)
    return all(
        any(one == word or (1 in (len(one), len(word)) and one[0] == word[0]) for one in rest) for word in short
    ) and any(len(word) > 1 and word in name for word in short)


def _holds(given: TextTokens, wanted: TextTokens, asked: TextTokens) -> bool:
    measured = [token for token in wanted if token.kind in MEASURED]
    if not _measured_hold(given, measured, asked):
        return False
    named = {token.value for token in asked}
    spared = {token.counted for token in measured if token.counted in named}
    links = not measured and not any(token.kind not in MEASURED and not token.link for token in wanted)
    others = [token for token in wanted if token.kind not in MEASURED and (links or not token.link)]
    said = [token for token in given if token.kind not in MEASURED and (links or not token.link)]
    if not others or _run(others, said) or _run([token for token in others if token.value not in spared], said):
        return True
    parts = _parts(wanted)
    return len(parts) > 1 and all(_run(part, said) for part in parts)


def _parts(wanted: TextTokens) -> list[list[TextToken]]:
    """Return the words of each part of a list, or of each clause of the reference."""
    parts: list[list[TextToken]] = [[]]
    for place, token in enumerate(wanted):
        joins = token.value in _COORDINATORS or token.kind in MEASURED
        if joins or (parts[-1] and (token.fresh or token.stance != wanted[place - 1].stance)):
            parts.append([])
        if not joins and not token.link:
            parts[-1].append(token)
    parts = [part for part in parts if part]
    return parts if len(parts) <= _LONGEST_LIST else [[token for part in parts for token in part]]


def _measured_hold(given: TextTokens, measured: TextTokens, asked: TextTokens) -> bool:
    units = {UNITS.get(token.value, token.value) for token in asked} | {token.unit for token in asked if token.unit}
    return all(any(states_same(one, token, units) for one in given) for token in measured)


def _spoken(token: TextToken) -> str:
    """Return a token as text for comparison; a different stance or bound makes it different."""
    value = "all" if token.kind == "word" and token.value in UNIVERSAL else token.value
    stance = "" if token.stance in ("given", "related") else f"{token.stance}~"
    return f"{stance}{token.bound}{value}"


def _run(wanted: TextTokens, given: TextTokens) -> bool:
    """True if the words occur in sequence, not only as the owner of something else ("Ada's deputy"); a name also
    surname first."""
    if not wanted:
        return True
    if any(_whole(given[end - 1]) or not _whole(wanted[-1]) for end in _ends(wanted, given)):
        return True
    turned = [*wanted[-1:], *wanted[:-1]]
    return (
        len(wanted) > 1
        and all(token.capital for token in wanted)
        and any("," in given[end - len(wanted) + 1].mark for end in _ends(turned, given))
    )


def _whole(token: TextToken) -> bool:
    return token.stance != "related"


def _ends(wanted: TextTokens, given: TextTokens) -> Iterator[int]:
    """Yield the position after each occurrence of the words in sequence in a text."""
    text = "".join(f" {_spoken(token)}" for token in given) + " "
    sought = "".join(f" {_spoken(token)}" for token in wanted) + " "
    at, count, seen = text.find(sought), 0, 0
    while at >= 0:
        count += text.count(" ", seen, at)
        seen = at
        yield count + len(wanted)
        at = text.find(sought, at + len(sought) - 1)


def _others(given: TextTokens, wanted: TextTokens, asked: TextTokens) -> Iterator[TextToken]:
    """Yield what the answer gives in place of the reference's facts."""
    kinds = {token.kind for token in wanted if not token.soft and not token.denied and token.kind != "word"}
    numbers = [token for token in wanted if token.kind == "number"]
    known = {token.value for token in (*wanted, *asked)}
    units = _units(given, wanted)
    for token in given:
        if token.kind not in kinds or token.stance != "given" or token.soft or token.value in known:
            continue
        if any(states_same(token, one) for one in numbers):
            continue
        if token.kind == "number" and (token.unit or token.counted) not in units:
            continue
        if token.kind in ("date", "time") and any(may_agree(token, one) for one in (*wanted, *asked)):
            continue
        yield token
    if _named(wanted):
        yield from _other_names(given, wanted, known, _beginnings_of(asked))


def _units(given: TextTokens, wanted: TextTokens) -> set[str]:
    """Return the units, and counted things, with which a number could replace that of the reference."""
    numbers = [token for token in wanted if token.kind == "number"]
    units = {token.unit for token in numbers if token.unit or not token.counted}
    values = {token.value for token in numbers}
    amounts = {amount_of(token) for token in numbers} - {None}
    units |= {
        token.unit or token.counted
        for token in given
        if token.kind == "number" and (token.value in values or amount_of(token) in amounts)
    }
    return units | ({""} if any(not token.unit for token in numbers) else set())


def _named(reference: TextTokens) -> bool:
    """True if a reference is or contains a name: a capital within it, or at each of its words."""
    words = [token for token in reference if token.kind == "word" and not token.link]
    return any(token.capital and not token.start for token in words) or (
        bool(words) and all(token.capital for token in words)
    )


def _other_names(given: TextTokens, wanted: TextTokens, known: set[str], echoes: set[str]) -> Iterator[TextToken]:
    """Yield the words of other names; `echoes`: the beginnings of the question's words."""
    own = {token.value for token in wanted if token.kind == "word" and not token.link}
    first = next(token.value for token in wanted if token.kind == "word" and not token.link)
    before = {_before(given, place) for place, token in enumerate(given) if token.value == first}
    place = 0
    while place < len(given):
        end = place + 1
        if given[place].capital:
            while end < len(given) and given[end].capital and not given[end].fresh:
                end += 1
            name = given[place:end]
            explained = _before(given, place) in PREPOSITIONS - before or _describes(given, place, end, own)
            if not explained and not own <= {token.value for token in name} and _is_name(name, given[end : end + 1]):
                yield from (
                    token
                    for token in name
                    if token.stance == "given" and token.value not in known and _beginning(token.value) not in echoes
                )
        place = end


def _describes(given: TextTokens, place: int, end: int, own: set[str]) -> bool:
    """True if capitalised words state the role of the name beside them: "the CFO, NAME", "Our DPO is NAME", "NAME
    (Finance)"."""
    if "(" in given[place].mark or any(token.value in ROLES for token in given[place:end]):
        return given[end : end + 1] == () or given[end].value not in ("or", "and")
    if place and given[place - 1].value in _DETERMINERS and not given[place].fresh:
        rest = given[end : end + 2]
        return any(token.value in own for token in rest[:1]) or (
            len(rest) == 2 and rest[0].value in ("is", "was") and rest[1].value in own
        )
    return False


def _alone_in_list(given: TextTokens, wanted: TextTokens, asked: TextTokens) -> Match:
    """Match the reference's words in an enumeration: "right" if no further thing is listed beside them, as in "red and
    green"."""
    said = [token for token in given if token.kind not in MEASURED and (not token.link or token.value in _COORDINATORS)]
    parts = _parts(wanted)
    own = {_spoken(token) for token in (*wanted, *asked)}
    listed = len(parts) > 1
    for part in parts:
        if all(token.value.isdigit() for token in part):
            continue  # a number such as 0800 4471: only another number stands in its place
        for end in _ends(part, said):
            names = part[0].capital and not any(token.capital for token in said[end : end + 1 + _ITEM])
            joiner = _joiner(said, end, listed)
            if joiner and _one_more(said[end + (joiner != ",") :], own):
                return "wrong" if listed or (joiner == "or" and not names) else "unsure"
            start = end - len(part)
            if (
                start > 1
                and said[start - 1].value == "or"
                and not said[start].fresh
                and _spoken(said[start - 2]) not in own
            ):
                return "wrong"
    return "right"


def _joiner(said: Sequence[TextToken], end: int, listed: bool) -> str:
    """Return the word or comma that joins another thing to the one that ends here; a comma joins only in a list."""
    if end >= len(said):
        return ""
    token = said[end]
    if token.value in ("or", "and") and token.kind == "word":
        return token.value if listed or not token.fresh else ""
    return "," if listed and token.mark in (",", "\n", "\n-", "\n•") else ""


def _one_more(rest: Sequence[TextToken], own: set[str]) -> bool:
    """True if the words up to the next punctuation or "and" are few enough to be one more thing."""
    item: list[TextToken] = []
    for token in rest:
        if item and (token.fresh or token.value in _COORDINATORS):
            break
        item.append(token)
    return 0 < len(item) <= _ITEM and not any(
        _spoken(token) in own or token.value in _NO_ITEM or token.stance != "given" for token in item
    )


def _before(tokens: TextTokens, place: int) -> str:
    """Return the word before a token and its article; empty if punctuation separates them."""
    if place and not tokens[place].fresh and tokens[place - 1].value in ("the", "a", "an"):
        place -= 1
    return tokens[place - 1].value if place and not tokens[place].fresh else ""


def _is_name(words: TextTokens, after: TextTokens) -> bool:
    """True for capitalised words within a sentence; at its start only if the next word joins another name: "Ada or
    Idris"."""
    if any(not token.start for token in words):
        return True
    return any(token.value in _COORDINATORS and not token.fresh for token in after)


def stands_in(text: str, statement: str) -> bool:
    """True if a text contains a statement: its numbers and dates anywhere, its other words in sequence; other content
    is ignored."""
    wanted = _plain(read(statement))
    return _holds(_plain(read(text)), wanted, ()) if wanted else statement.strip() in text


def _plain(tokens: TextTokens) -> list[TextToken]:
    """Return the tokens without bounds, and with no stance but denied: a passage may bound a statement, or tell it as
    former."""
    return [replace(token, stance="denied" if token.denied else "given", bound="") for token in tokens]


def facts_stand_in(text: str, statement: str, question: str = "") -> bool:
    """True if every number, date, time, code, weekday and name of a statement is in a text; those of the question are
    exempt."""
    given, asked = read(text), read(question)
    known = {token.value for token in asked}
    words = {token.value for token in (*given, *asked)}
    wanted = _years_as_dates(read(statement), given)
    named = _named(wanted)
    for token in wanted:
        if token.kind in MEASURED:
            if not any(
                states_same(replace(one, stance=token.stance, bound=token.bound), token) for one in (*given, *asked)
            ):
                return False
            continue
        named_here = token.capital and (named or not token.start) and token.value not in known
        if (token.kind != "word" or named_here) and token.value not in words:
            return False
    return True


def sentences(text: str) -> list[str]:
    """Return the sentences and lines of a text."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]


def sentences_for(text: str, statement: str) -> list[str]:
    """Return the sentences of a text that contain any of a statement's facts (numbers, dates, names); all if it states
    none."""
    facts = _facts(statement)
    return [one for one in sentences(text) if not facts or facts & {(token.kind, token.value) for token in read(one)}]


def sentence_for(candidates: Sequence[str], statement: str) -> str:
    """Return the sentence with most of a statement's facts; among several, the one with most of its words."""
    facts, words = _facts(statement), {(token.kind, token.value) for token in read(statement) if not token.link}

    def held(sentence: str) -> tuple[int, int]:
        found = {(token.kind, token.value) for token in read(sentence)}
        return len(facts & found), len(words & found)

    return max(candidates, key=held, default="")


def _facts(statement: str) -> set[tuple[str, str]]:
    wanted = read(statement)
    named = _named(wanted)  # else a capital that begins the sentence tells nothing
    return {
        (token.kind, token.value)
        for token in wanted
        if token.kind != "word" or (token.capital and (named or not token.start))
    }
