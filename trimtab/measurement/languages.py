"""Languages of a text: Chinese and Japanese respelled as the rules read them, and whether a text's language was tried.

The rules (facts.py, stances.py) read words that spaces separate. So Chinese and Japanese numbers, units, dates, times
and bounds become English ones (`午後3時` is `3:00 pm`), and each other character a word of its own.
"""

from __future__ import annotations

import re

from trimtab.measurement.numerals import words

_LAST_LATIN = 0x24F
_EAST = "\u3005\u3041-\u30ff\u3400-\u9fff"
_EASTERN = re.compile(f"[{_EAST}]")
_DIGITS = "一二三四五六七八九"
_COUNTED = "年月日号時时点點分秒人名歳岁円元天周週個个か"
_SPELLED = re.compile(f"(?<![{_DIGITS}十百])([{_DIGITS}]?)(十?)([{_DIGITS}]?)(?=[{_COUNTED}])")
_AFTER_NOON = ("午後", "下午", "晚上")
_TIME = re.compile(r"(午前|午後|上午|下午|早上|晚上)?([0-9]{1,2})[時时点點](?![間间])(?:([0-9]{1,2})分|(半))?")
_DATE = re.compile(r"(?:([12][0-9]{3})年)?([0-9]{1,2})月(?:([0-9]{1,2})[日号號])?")
_YEAR = re.compile(r"(?<![0-9])([12][0-9]{3})年(?![間间])")
_MONTHS = ("", *words("January February March April May June July August September October November December"))
_RESPELLED: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), f" {word} ")
    for pattern, word in (
        (r"(?<=[0-9])(?:[かヶカケ箇]月間?|[个個]月)", "month"),
        (r"(?<=[0-9])(?:年[間间]?)", "year"),
        (r"(?<=[0-9])(?:[歳岁])", "year"),
        (r"(?<=[0-9])(?:[週周][間间]?|[个個]?星期)", "week"),
        (r"(?<=[0-9])(?:日[間间]?|天)", "day"),
        (r"(?<=[0-9])(?:時間|[个個]?小[时時])", "hour"),
        (r"(?<=[0-9])分[钟鐘間]?", "minute"),
        (r"(?<=[0-9])秒[钟鐘間]?", "second"),
        (r"(?<=[0-9])(?:円|日元)", "yen"),
        (r"(?<=[0-9])(?:ユーロ|欧元)", "euro"),
        (r"(?<=[0-9])(?:ドル|美元)", "dollar"),
        (r"(?<=[0-9])(?:元|块)", "yuan"),
        (r"(?<=[0-9])[人名]", "people"),
        (r"(?<=[0-9])度", "degrees"),
        (r"以上", "or more"),
        (r"以下|以内|以內", "or less"),
        (r"少なくとも|至少|最少|最低", "at least"),
        (r"多くとも|最多|至多|最大", "at most"),
        (r"(?<=[\u4e00-\u9fff])か(?=[\u4e00-\u9fff])", "or"),
        (r"または|あるいは|もしくは|或者|还是|或", "or"),
        (r"ではありません|ではない|じゃない|ません|没有|不(?=[是在能可会會得])", "not"),
        (r"[而]?是(?=[0-9])", "is"),
        (r"而(?=[是在])", "but"),
        (r"ではなく", "not but"),
    )
)
PARTICLES = frozenset("是在为為于於的了由从從到和与與也都们們这那這") | {chr(code) for code in range(0x3041, 0x30A0)}
"""Characters that only join words or end them."""
OWNERS = frozenset("の的")
"""Behind a name, these give something of it."""
_UNTRIED = frozenset(
    words(
        "het een niet zijn wordt della dello sono gli nel anche uma não são pelo och är inte och som ikke og er "
        "się przez dla nem egy és bir ve değil için ja ovat není jsou"
    )
) - {"er", "ja", "een"}
"""Frequent words of languages that were not tried, and of none that was."""


def respelled(text: str) -> str:
    """Return a text with its Chinese and Japanese in words that spaces separate; as it is if it has none."""
    if text.isascii() or not _EASTERN.search(text):
        return text
    text = _SPELLED.sub(_in_digits, text.replace("。", ". ").replace("、", ", "))
    text = _TIME.sub(_time, text)
    text = _DATE.sub(_date, text)
    text = _YEAR.sub(r" \1 ", text)
    for pattern, word in _RESPELLED:
        text = pattern.sub(word, text)
    return _EASTERN.sub(r" \g<0> ", text)


def _in_digits(found: re.Match[str]) -> str:
    tens, ten, ones = found.groups()
    if not found[0]:
        return ""
    value = (_DIGITS.index(tens) + 1) if tens else int(bool(ten))
    if ten:
        value = 10 * value + (_DIGITS.index(ones) + 1 if ones else 0)
    return str(value)


def _time(found: re.Match[str]) -> str:
    half, hour, minute, past = found.groups()
    named = "" if half is None or int(hour) > 12 else " pm" if half in _AFTER_NOON else " am"
    return f" {hour}:{30 if past else int(minute or 0):02}{named} "


def _date(found: re.Match[str]) -> str:
    year, month, day = found.groups()
    if not 1 <= int(month) <= 12:
        return found[0]
    return f" {day or ''} {_MONTHS[int(month)]} {year or ''} "


def eastern(word: str) -> bool:
    """True for a Chinese or Japanese character."""
    return bool(_EASTERN.fullmatch(word))


def is_untried(text: str) -> bool:
    """True if most letters of a text are of a script that `contains` was not tried in, or its words are of such a
    language."""
    if text.isascii():
        return not _UNTRIED.isdisjoint(text.casefold().split())
    letters = [letter for letter in text if letter.isalpha()]
    other = sum(1 for letter in letters if ord(letter) > _LAST_LATIN and not _EASTERN.match(letter))
    return 2 * other > len(letters) or not _UNTRIED.isdisjoint(text.casefold().split())
