"""Stances of a text towards what it states: given, denied, former, or of something that belongs to it; and bounds of
numbers.

A text is cut into clauses, at punctuation and at words such as "but", "which", "except". A clause with a negation
denies all that it states: "it cannot be 30 days", "two years is wrong". The words of bounds and the most frequent of
denial are those of the languages that facts.py names, the others English only. Linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from trimtab.measurement.numerals import words
from trimtab.measurement.tokens import LINKS, Bound, Stance, TextToken

MEASURED = ("number", "ordinal", "date", "time")
UNIVERSAL = frozenset(words("all any anyone anybody anything every everyone everybody everything each"))
_BREAK = re.compile(r"[,;:.!?()\[\]—–\n\r\u2028\u2029…•]|(?<=\s)-")
_NEGATORS = frozenset(
    words(
        "not never neither nor cannot cant couldnt wont wouldnt shouldnt isnt arent wasnt werent dont doesnt "
        "didnt hasnt havent hadnt mustnt neednt"
    )
)
_BEHIND_NO = frozenset(words("lo la le se es son fue era hay ha esta estan tiene puede debe"))  # Spanish
_FALSE = frozenset(words("wrong false incorrect untrue mistaken doubtful"))
_TO_BE = frozenset(words("is are was were be"))
_NOBODY = frozenset(words("nobody none nothing noone no nowhere not"))
_NEW_CLAUSE = frozenset(
    words("but which who whom whose because if when while although though unless where whereas so then")
)
_CHANGES = frozenset(
    words(
        "rose risen rise rises grew grown grow fell fallen dropped increased decreased raised lowered cut moved "
        "moves changed changes extended shortened postponed rescheduled went gone reduced climbed declined "
        "switched brought up down"
    )
)
RELATIONS = frozenset(
    words(
        "deputy assistant secretary successor predecessor student pupil apprentice follower widow widower wife "
        "husband spouse partner son daughter child children grandson granddaughter brother sister mother father "
        "parents cousin nephew niece uncle aunt friend colleague neighbour neighbor lawyer adviser advisor agent "
        "boss manager supervisor team staff workshop office family heir heirs driver doctor teacher mentor rival "
        "enemy opponent critic representative delegate substitute"
    )
)
ROLES = frozenset(
    words(
        "officer director manager head chief president chair chairman chairwoman secretary minister lead leader "
        "mayor dean captain treasurer coordinator administrator archivist engineer ceo cfo cto coo cio dpo"
    )
)
# Before names alone: "is replaced after 50 months" tells of no former one.
_SUCCEEDS = ("succeeded", "succeeding", "replaced", "replacing")
# What follows these, up to the end of its clause, is not what is meant.
_OPENERS: Mapping[tuple[str, ...], Stance] = {
    ("rather", "than"): "denied",
    ("instead", "of"): "denied",
    ("as", "opposed", "to"): "denied",
    ("unlike",): "denied",
    ("except",): "denied",
    ("except", "for"): "denied",
    ("excluding",): "denied",
    ("excepting",): "denied",
    ("other", "than"): "denied",
    ("apart", "from"): "denied",
    ("aside", "from"): "denied",
    ("exception", "of"): "denied",
    ("compared", "with"): "former",
    ("compared", "to"): "former",
    ("up", "from"): "former",
    ("down", "from"): "former",
    ("over", "from"): "former",
    ("previously",): "former",
    ("formerly",): "former",
    **{(word,): "former" for word in _SUCCEEDS},
}
_LONGEST_OPENER = max(map(len, _OPENERS))
_COMPARED: Mapping[Bound, tuple[str, ...]] = {
    "over": words("more older longer greater higher larger later heavier taller bigger"),
    "under": words("less fewer younger shorter smaller lower lighter earlier"),
}
# These stand before a number or behind it.
_AROUND: Mapping[tuple[str, ...], Bound] = {
    **dict.fromkeys(
        (
            ("at", "least"),
            ("at", "the", "least"),
            ("at", "very", "least"),
            ("minimum",),
            ("mindestens",),
            ("wenigstens",),
            ("au", "moins"),
            ("au", "minimum"),
            ("al", "menos"),
            ("por", "lo", "menos"),
            ("como", "minimo"),
        ),
        "min",
    ),
    **dict.fromkeys(
        (
            ("at", "most"),
            ("at", "the", "most"),
            ("maximum",),
            ("hochstens",),
            ("maximal",),
            ("au", "plus"),
            ("au", "maximum"),
            ("a", "lo", "sumo"),
            ("como", "maximo"),
        ),
        "max",
    ),
}
_BEFORE: Mapping[tuple[str, ...], Bound] = {
    **_AROUND,
    ("minimum", "of"): "min",
    ("no", "later", "than"): "",  # a deadline, said in other words
    ("not", "later", "than"): "",
    ("up", "to"): "max",
    ("to", "zu"): "max",  # "bis zu"
    ("jusqua",): "max",
    ("hasta",): "max",
    ("mehr", "als"): "over",
    ("plus", "de"): "over",
    ("mas", "de"): "over",
    ("weniger", "als"): "under",
    ("moins", "de"): "under",
    ("menos", "de"): "under",
    ("maximum", "of"): "max",
    ("over",): "over",
    ("above",): "over",
    ("exceeding",): "over",
    ("under",): "under",
    ("below",): "under",
    ("twice",): "times",
    ("double",): "times",
    **{(word, "than"): "over" for word in _COMPARED["over"]},
    **{(word, "than"): "under" for word in _COMPARED["under"]},
    **{(no, word, "than"): "max" for no in ("no", "not") for word in _COMPARED["over"] if word != "later"},
    **{(no, word, "than"): "min" for no in ("no", "not") for word in _COMPARED["under"]},
}
# Of dates and times alone: "after 5 May", but "after 30 days" gives 30 days.
_OF_MOMENTS: Mapping[str, Bound] = {"after": "over", "before": "under"}
_AFTER: Mapping[tuple[str, ...], Bound] = {
    **{("or", word): "min" for word in (*_COMPARED["over"], "over", "above", "up")},
    **{("and", word): "min" for word in (*_COMPARED["over"], "over", "above", "up")},
    **{("or", word): "max" for word in (*_COMPARED["under"], "under", "below")},
    ("upwards",): "min",
    ("upward",): "min",
    **_AROUND,
}
_AMOUNT_APART = frozenset((*_COMPARED["over"], *_COMPARED["under"]))
_MORE = frozenset(("another", "further", "extra", "additional"))
UP: tuple[Bound, ...] = ("min", "over")
DOWN: tuple[Bound, ...] = ("max", "under")
_ASKS_BOUND: Mapping[str, tuple[Bound, ...]] = {
    **dict.fromkeys(
        words(
            "minimum least minimal smallest lowest earliest shortest maximum most maximal largest highest latest "
            "longest"
        ),
        ("min", "max"),
    ),
    **dict.fromkeys(words("limit limited threshold"), (*UP, *DOWN)),
    **dict.fromkeys(words("may can allowed permitted"), ("max",)),
    **dict.fromkeys(words("must need needed required demand demands demanded"), ("min",)),
    "deadline": ("under",),
}
_ASKING = frozenset(words("what which how when"))
# Directly before one of these a question states a bound itself: "under what price", "more than how many".
_STATES_BOUND: Mapping[tuple[str, ...], tuple[Bound, ...]] = {
    **{said: UP if bound in UP else DOWN for said, bound in _BEFORE.items() if bound in (*UP, *DOWN)},
    **dict.fromkeys((("after",), ("from",), ("beyond",)), UP),
    **dict.fromkeys((("before",), ("until",), ("till",), ("within",)), DOWN),
}
_LAST = frozenset(words("moment minute hour time day date"))  # "the last moment" is a deadline, "last year" is none
_ENDS: Mapping[tuple[str, ...], Bound] = {
    ("from",): "start",
    ("until",): "stop",
    ("till",): "stop",
    ("up", "to"): "stop",
}
_STARTS = frozenset(words("start starts begin begins earliest"))
_STOPS = frozenset(words("ends finish finishes latest"))
_OPENS, _CLOSES = frozenset(words("open opens")), frozenset(words("close closes"))
_SHUT = ("clos", "shut")  # what is told to be closed from one time to another opens at the second
_ASKS_FORMER = frozenset(words("before previously formerly originally previous former old initially initial"))


def negates(tokens: Sequence[TextToken]) -> bool:
    """True if a question asks for what is not so."""
    return any(_negation(tokens, place) for place in range(len(tokens)))


def asked_bounds(question: Sequence[TextToken]) -> set[Bound]:
    """Return the bounds that a question asks for, or states itself.

    In answer to "how much may I spend" up to 75 euros are 75 euros, and in answer to "under what price" under 270
    euros are 270 euros.
    """
    said = {"may" if token.soft and token.kind == "date" else token.value for token in question}
    found = {bound for word in said for bound in _ASKS_BOUND.get(word, ())}
    for place, token in enumerate(question):
        if token.value in _ASKING and not token.fresh:
            found.update(
                next((_STATES_BOUND[one] for one in _words_before(question, place) if one in _STATES_BOUND), ())
            )
        elif token.value in _LAST and place and question[place - 1].value == "last":
            found.add("under")
    return found


def asked_end(question: Sequence[TextToken], answer: Sequence[TextToken]) -> Bound:
    """Return the end of a range that a question asks for, `start` or `stop`; empty if it does not say.

    "From when" and "until when" say it, else verbs such as "start"; "open" and "close" do not where the answer tells
    of closing.
    """
    stated = {
        _ENDS[before]
        for place, token in enumerate(question)
        if token.value in _ASKING and not token.fresh
        for before in _words_before(question, place)
        if before in _ENDS
    }
    if not stated:
        shut = any(token.value.startswith(_SHUT) for token in answer)
        values = {token.value for token in question}
        if values & (_STARTS if shut else _STARTS | _OPENS):
            stated.add("start")
        if values & (_STOPS if shut else _STOPS | _CLOSES) or _ends_as_verb(question):
            stated.add("stop")
    return stated.pop() if len(stated) == 1 else ""


def _words_before(tokens: Sequence[TextToken], place: int) -> Iterator[tuple[str, ...]]:
    """Yield the last three, two and one words before a token, if no punctuation separates them."""
    for length in (3, 2, 1):
        before = tokens[place - length : place] if place >= length else ()
        if before and not any(one.fresh for one in before[1:]):
            yield tuple(one.value for one in before)


def _ends_as_verb(question: Sequence[TextToken]) -> bool:
    """True if "end" is a verb, as in "when does it end", not in "at the end of the year"."""
    return any(
        token.value == "end"
        and (place + 1 == len(question) or question[place + 1].value != "of")
        and (
            place == 0 or question[place - 1].value not in ("the", "at", "in", "each", "every", "year", "month", "week")
        )
        for place, token in enumerate(question)
    )


def asks_for_former(question: Sequence[TextToken]) -> bool:
    """True if a question asks for what was so before."""
    return any(token.value in _ASKS_FORMER for token in question)


def with_stances(tokens: list[TextToken]) -> list[TextToken]:
    """Return the tokens with clause, stance and bound of each; words that only bound a number, or leave something out,
    are removed."""
    return _belonging(_of_clauses(_bounded(tokens)))


def _bounded(tokens: list[TextToken]) -> list[TextToken]:
    """Give each number, date and code the bound that words around it say, and both ends of a range theirs."""
    found: list[TextToken] = []
    skipped: set[int] = set()
    for place, token in enumerate(tokens):
        if place in skipped:
            continue
        if token.kind not in (*MEASURED, "code"):
            found.append(token)
            continue
        bound, length = _bound_before(found, token)
        token = _taken(found, length, token)
        after, used = _bound_after(tokens, place)
        skipped.update(used)
        token = replace(token, bound=bound or after)
        found.append(token if token.bound else _apart(tokens, place, token))
        _range(found)
    return found


def _bound_before(found: Sequence[TextToken], token: TextToken) -> tuple[Bound, int]:
    """Return the bound that the words directly before a number give it, and the number of those words."""
    if token.fresh or not found:
        return "", 0
    if token.kind in ("date", "time", "code") and found[-1].value in _OF_MOMENTS:
        return _OF_MOMENTS[found[-1].value], 1
    for length in (3, 2, 1):
        last = found[-length:]
        bound = _BEFORE.get(tuple(one.value for one in last))
        if bound is not None and len(last) == length and not any(one.fresh for one in last[1:]):
            return bound, length
    return "", 0


def _taken(found: list[TextToken], length: int, token: TextToken) -> TextToken:
    """Remove the last words; return the token after them, which begins where they began."""
    if not length:
        return token
    first = found[-length]
    del found[-length:]
    return replace(token, fresh=first.fresh, start=first.start, mark=first.mark)


def _bound_after(tokens: Sequence[TextToken], place: int) -> tuple[Bound, range]:
    for begin in (place + 1, place + 2):  # "80 or more", "80 guests or more"
        for length in (3, 2, 1):
            after = tokens[begin : begin + length]
            bound = _AFTER.get(tuple(one.value for one in after))
            if bound and not any(one.fresh for one in tokens[place + 1 : begin + length]):
                return bound, range(begin, begin + length)
    return "", range(0)


def _apart(tokens: Sequence[TextToken], place: int, token: TextToken) -> TextToken:
    """Mark a number that states the difference of two things: "25 more than in 2020"."""
    if place and tokens[place - 1].value in _MORE and not token.fresh:
        return replace(token, stance="apart")
    near = [one.value for one in tokens[place + 1 : place + 4]]
    than = near.index("than") if "than" in near else 0
    return replace(token, stance="apart") if than and near[than - 1] in _AMOUNT_APART else token


def _range(found: list[TextToken]) -> None:
    """Bound the two ends of "10-12", "10 to 12", "between 10 and 12" and "from 10 to 12", unless it tells of a change
    from one to the other."""
    last = found[-1]
    if len(found) < 2 or last.fresh:
        return
    joined = found[-2].value if found[-2].kind == "word" else last.mark
    other = -3 if found[-2].kind == "word" else -2
    if len(found) < -other or found[other].kind != last.kind or joined not in ("to", "and", "-"):
        return
    if found[-2].kind == "word" and found[-2].fresh:
        return
    before = found[other - 1] if len(found) > -other else None
    opened = before is not None and before.value in ("from", "between") and not found[other].fresh
    if (joined == "and" and not opened) or any(one.value in _CHANGES for one in found[-8 + other : other]):
        return
    found[other] = replace(found[other], bound="start")
    found[-1] = replace(last, bound="stop", fresh=False)
    if other == -3:
        del found[-2]
    if opened:  # the bounds tell it
        found[-2] = replace(found[-2], fresh=found[-3].fresh, start=found[-3].start, mark=found[-3].mark)
        del found[-3]


def _of_clauses(tokens: list[TextToken]) -> list[TextToken]:
    """Return the tokens with their clause, and the stance that a denial in it, a change, or its opening words give
    them."""
    found: list[TextToken] = []
    for number, (opened, clause) in enumerate(_clauses(tokens)):
        denials = [said for place in range(len(clause)) if (said := _negation(clause, place)) is not None]
        for token, own in zip(clause, _changes(clause, opened), strict=True):
            stance = own
            if own == "given":
                stance = denials[0] if denials else token.stance
            found.append(replace(token, clause=number, stance=stance))
    return found


def _clauses(tokens: list[TextToken]) -> Iterator[tuple[Stance, list[TextToken]]]:
    """Yield each clause with the stance of its opening words, which are removed."""
    clause: list[TextToken] = []
    stance: Stance = "given"
    place = 0
    while place < len(tokens):
        length, opened = _opener(tokens, place)
        if clause and (length or _breaks(tokens, place)):
            yield stance, clause
            clause, stance = [], "given"
        if length:
            stance = opened
            _pass_on_mark(tokens, place, place + length)
            place += length
        else:
            clause.append(tokens[place])
            place += 1
    if clause:
        yield stance, clause


def _pass_on_mark(tokens: list[TextToken], place: int, to: int) -> None:
    """Let a token begin where removed words before it began."""
    if to < len(tokens):
        first, after = tokens[place], tokens[to]
        tokens[to] = replace(after, fresh=after.fresh or first.fresh, start=first.start, mark=after.mark or first.mark)


def _changes(clause: Sequence[TextToken], stance: Stance) -> Iterator[Stance]:
    """Yield the stance of each token: in "rose from 880 to 920" the first value is a former one."""
    changing = False
    for place, token in enumerate(clause):
        if token.value in _CHANGES:
            changing = True
        elif changing and token.value == "from" and any(one.value == "to" for one in clause[place + 1 : place + 9]):
            stance = "former"
        elif changing and token.value == "to" and stance == "former":
            stance = "given"
        yield stance


def _breaks(tokens: Sequence[TextToken], place: int) -> bool:
    """True if a clause begins here."""
    token = tokens[place]
    if token.fresh and (not token.mark or _BREAK.search(token.mark)):
        return True
    if token.kind != "word":
        return False
    after = tokens[place + 1] if place + 1 < len(tokens) else None
    if token.value in ("and", "or", "nor") and after is not None:
        return token.value != "nor" and (after.value in _NEGATORS or after.value in _TO_BE)
    return token.value in _NEW_CLAUSE


def _opener(tokens: Sequence[TextToken], place: int) -> tuple[int, Stance]:
    """Return the number of words that set apart what follows, and its stance. "Nobody but NAME" gives the name."""
    before = tokens[max(0, place - 8) : place]
    for length in range(_LONGEST_OPENER, 0, -1):
        part = tokens[place : place + length]
        stance = _OPENERS.get(tuple(one.value for one in part))
        if stance is None or len(part) < length or any(one.fresh for one in part[1:]):
            continue
        after = tokens[place + length] if place + length < len(tokens) else None
        if part[0].value in _SUCCEEDS and (after is None or not after.capital):
            return 0, "given"
        if stance == "denied" and part[0].value not in ("rather", "instead", "as", "unlike"):
            return length, _exclusion(before)
        return length, stance
    if tokens[place].value == "but" and not tokens[place].fresh and any(_sums(one) for one in before[-4:]):
        return 1, _exclusion(before)
    return 0, "given"


def _sums(token: TextToken) -> bool:
    return token.value in UNIVERSAL or (token.value in _NOBODY and token.value not in ("no", "not"))


def _exclusion(before: Sequence[TextToken]) -> Stance:
    return "given" if any(one.value in _NOBODY for one in before) else "denied"


def _negation(tokens: Sequence[TextToken], place: int) -> Stance | None:
    """Return the stance that this word gives its clause: denied, or former; None if neither."""
    value = tokens[place].value
    before = tokens[place - 1] if place and not tokens[place].fresh else None
    after = tokens[place + 1] if place + 1 < len(tokens) and not tokens[place + 1].fresh else None
    if value == "no" and after is not None and after.value in _BEHIND_NO:
        return "denied"
    if value in _NEGATORS:
        local = after is not None and (after.value == "only" or after.value.endswith("ing"))
        return None if local else "denied"
    if value in _FALSE and (
        (before is not None and before.value in _TO_BE) or (after is not None and after.value == "that")
    ):
        return "denied"
    if value in ("doubt", "doubts") and (before is None or before.value not in ("no", "without")):
        return "denied"
    if value == "longer" and before is not None and before.value == "no":
        return "denied"
    if value == "used" and after is not None and after.value == "to":
        return "former" if place + 2 < len(tokens) and tokens[place + 2].value == "be" else None
    return None


def _belonging(tokens: list[TextToken]) -> list[TextToken]:
    """Mark names of which only a relation is stated: "NAME's deputy", "a student of NAME"."""
    relation = False
    for place, token in enumerate(tokens):
        after = tokens[place + 1] if place + 1 < len(tokens) else None
        if token.fresh:
            relation = False
        if token.possessive and token.stance == "given" and after is not None and not after.fresh:
            _mark_name(tokens, place)
        elif token.value == "of" and place and tokens[place - 1].value in RELATIONS:
            relation = True
        elif relation and token.stance == "given" and token.value not in LINKS:
            tokens[place] = replace(token, stance="related")
    return tokens


def _mark_name(tokens: list[TextToken], last: int) -> None:
    """Mark the capitalised words up to the last word of a name."""
    for place in range(last, max(last - 5, -1), -1):
        if place < last and not (tokens[place].capital and tokens[place].stance == "given"):
            break
        tokens[place] = replace(tokens[place], stance="related")
        if tokens[place].fresh:
            break
