"""Detects the encoding of text files: UTF-8 if it decodes, else the code page under which the bytes are the likeliest
text."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from math import inf, log
from pathlib import Path

from trimtab.data.sources import open_checked, utf16_or_32

ASCII, UTF8 = "ascii", "utf-8"
_BLOCK = 256 * 1024
_SAMPLE = 16 * 1024
"""Bytes that a guess is based on."""
_UTF8_CHARACTER = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe1-\xef][\x80-\xbf]{2}|[\xf1-\xf4][\x80-\xbf]{3}")
_ASCII_BYTES = bytes(range(128))
_UTF8_SHARE = 0.8  # of the non-ASCII bytes
_WORDS_SHOWN = 3  # words with non-ASCII letters
_NON_ASCII_LETTERS = re.compile(r"[^\W\d_A-Za-z]+")
_NON_ASCII_WORD = re.compile(r"\w{0,20}[^\s\x00-\x7f]\w{0,20}")

# The non-ASCII letters of each language, roughly from the most to the least frequent in running text.
_LATIN: Mapping[str, str] = {
    "English": "éèñçöïüêáâ",
    "French": "éàèêçôîùâûœëïüæÿ",
    "German": "üäöß",
    "Spanish": "óíáéñúü¿¡ªº",
    "Portuguese": "ãçáéõóíêúâàôºª",
    "Italian": "èàùòìéó",
    "Dutch": "ëéïèöüê",
    "Swedish": "äöåéü",
    "Danish": "øåæéóòô",
    "Icelandic": "íáðéóúþöæý",
    "Polish": "łęążśćóńź",
    "Czech": "íáěéřšžčýůúňťďó",
    "Slovak": "áíéžščýúľťôňďäóĺŕ",
    "Hungarian": "áéőöóüíűú",
    "Romanian": "ăîâşţșț",
    "Croatian": "ščžćđ",
    "Turkish": "ışüğçöİâîû",
    "Baltic": "āėīšžūēļąčņųįęģķõäöü",
    "Vietnamese": "àáâđảạêôấươếộệóíịăủớềờợúãìồứốựũéẻ",
}
_OTHERS: Mapping[str, str] = {
    "Russian": "оеаинтслрвкдмпуяыьгзбчйхжюшцщэфъё",
    "Ukrainian": "оанівитрсекдлмупязьгбйчхцжїюєшщфґ",
    "Bulgarian": "аиоентрсвлкдпмзяъбугчщхцжйюшфь",
    "Serbian": "аиоенрстудвјкмплљзбгчшњцжћхђфџ",
    "Greek": "αοιετσνηυρπκμλωςίόάγέθήδύχώξφβζψϊϋ",
    "Hebrew": "יוהלאמתברשנעםדחקפגטכןצזסךףץ",
    "Arabic": "اليمنرتوبدعهسفةكحقجأطصشخزضغذثظىئإءآؤ",
    "Thai": "านรอกเงยลวมทสต่้็ีหดคปใแิพะัชขไูบจื์ุโถซผณธศญฝภษฉฮฐ",
}
_CHINESE = (
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么去法"
    "学如都同现当没动面起看定天分还进好小部其些主样理心本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业"
    "外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教儿原东"
    "声提立及比员解水名真论处走义各入几口认条平系气题活尔更别打女变四神总何电数安少报才结反受目太量再感建务做接必场件计管期市直德资命山"
    "这这们为说时会过对发来后还进开动种应关问间长实现点业话见给请订单货邮费吗吧您谢换钱快递退款银卡支付账户密码验证"
)
_TRADITIONAL = (
    "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於著下自之年過發後作裡用道行所然家種事成方多經麼去法"
    "學如都同現當沒動面起看定天分還進好小部其些主樣理心本前開但因只從想實日軍者意無力它與長把機十民第公此已工使情明性知全三又關點正業"
    "外將兩高間由問很最重並物手應戰向頭文體政美相見被利什二等產或新己制身果加西月話合回特代內信表化老給世位次度門任常先海通教兒原東聲"
    "提立及比員解水名真論處走義各入幾口認條平系氣題活更別打女變四神總何電數安少報才結反受目太量再感建務做接必場件計管期市直資命山請訂單貨"
)
_JAPANESE = (
    "のにはをたがでてとしれさいるもなかこあまよりうんくらきすつそどけせだみょちおわえめじゃ本日大年人国会一上中事出時生者社月長部分同自分"
    "スンルトイラリアクシドレッテコマフタメロバサナキパデムカニグプジオハズウブセビュャミチゴダネエホワザガィォァェモヤユヨヘベボポピペー"
    "っろびやぶごばげずぎねべべむへゆふひほぼぱぐぷぴ、。「」・注文商品配送料金返品方法電話番号住所名前日何今後前間高新"
)
_KOREAN = (
    "이다는을에가의하고지를로한은어기도사인나그리자수아대서스시부있해라일니만정보게거상전여구오요들주제으적원면습비세것동마우장과무안선화성국"
    "내모위조용유진신경중자었했할분업소연간당금방미바물치개행공회생식관문법민호체계결심실등음속노반형운절질말관래드르야되없좋했어떻배송환불카"
)
_MARKS = "’£“”–…‘—€§°«»„‚·•´®©™²½×¼³¾±¥¢¡¿ªº†‰‹›\u00a0"
_WIDE_MARKS = "，。、！？：；（）「」“”…《》—·・『』【】～＂"
"""Punctuation of Western and of East Asian texts, roughly from the most to the least frequent."""

_COMMON: Mapping[str, str] = {
    "Chinese": _CHINESE,
    "Traditional": _TRADITIONAL,
    "Japanese": _JAPANESE,
    "Korean": _KOREAN,
}

# Encodings with their prior (how often files use them) and the languages written in them; ties go to the first.
_CANDIDATES: Mapping[str, tuple[float, tuple[str, ...]]] = {
    "cp1252": (
        1.0,
        ("English", "French", "German", "Spanish", "Portuguese", "Italian", "Dutch", "Swedish", "Danish", "Icelandic"),
    ),
    "cp1250": (0.1, ("Polish", "Czech", "Slovak", "Hungarian", "Romanian", "Croatian", "German")),
    "cp1251": (0.1, ("Russian", "Ukrainian", "Bulgarian", "Serbian")),
    "gb18030": (0.1, ("Chinese",)),
    "cp932": (0.1, ("Japanese",)),
    "big5": (0.1, ("Traditional",)),
    "cp949": (0.1, ("Korean",)),
    "cp1253": (0.1, ("Greek",)),
    "cp1254": (0.1, ("Turkish",)),
    "cp1255": (0.1, ("Hebrew",)),
    "cp1256": (0.1, ("Arabic",)),
    "cp1257": (0.1, ("Baltic", "Polish")),
    "cp1258": (0.03, ("Vietnamese",)),
    "cp874": (0.1, ("Thai",)),
    "iso8859_2": (0.03, ("Polish", "Czech", "Slovak", "Hungarian", "Romanian", "Croatian")),
    "iso8859_15": (0.01, ("French", "German", "Spanish", "Portuguese", "Italian", "Swedish", "Danish", "Icelandic")),
    "mac_roman": (
        0.01,
        ("French", "German", "Spanish", "Portuguese", "Italian", "Swedish", "Danish", "Icelandic", "English"),
    ),
    "cp850": (0.01, ("French", "German", "Spanish", "Portuguese", "Italian", "Swedish", "Danish", "Icelandic")),
    "cp852": (0.01, ("Polish", "Czech", "Slovak", "Hungarian", "Romanian", "Croatian")),
    "cp866": (0.01, ("Russian", "Ukrainian", "Bulgarian")),
    "koi8_r": (0.03, ("Russian", "Bulgarian")),
    "koi8_u": (0.01, ("Ukrainian",)),
    "euc_jp": (0.01, ("Japanese",)),
}
_UNLISTED, _ODD_PENALTY, _CAPITALS = log(1e-6), log(0.01), 0.1
"""Log-probability of an unlisted character, penalty of one in an unusual position; share of capital letters."""
_LETTERS = frozenset(letter for letters in _LATIN.values() for letter in letters + letters.upper())
_WORDS = frozenset("àéèóáíýÀÉÈÓÁÍöå")
"""Letters that are words by themselves."""
_WITHIN_WORDS = frozenset("’‘´·—–…")


def detect_encoding(path: Path) -> str:
    """Return the encoding of a text file: `ascii`, `utf-8`, UTF-16 or UTF-32, else the likeliest code page.

    `utf-8` also if nothing fits: reading the file then reports the first invalid byte. Raises InputError if the file
    cannot be opened.
    """
    decoder, plain = codecs.getincrementaldecoder(UTF8)("strict"), True
    with open_checked(path) as file:
        block = file.read(_BLOCK)
        wide = utf16_or_32(block)
        if wide is not None:
            return wide
        try:
            while block:
                decoder.decode(block)
                plain = plain and block.isascii()
                block = file.read(_BLOCK)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            sample = _sample(path)
            if _is_broken_utf8(sample):
                return UTF8
            return guess_encoding(sample, is_truncated=len(sample) == _SAMPLE)
    return ASCII if plain else UTF8


def _is_broken_utf8(sample: bytes) -> bool:
    """True if far more non-ASCII bytes form characters of UTF-8 than not: the others are damage, no other encoding."""
    valid = sum(map(len, _UTF8_CHARACTER.findall(sample)))
    return valid > _UTF8_SHARE * len(sample.translate(None, _ASCII_BYTES))


def _sample(path: Path) -> bytes:
    """Return the first lines with non-ASCII bytes, complete but for the last."""
    sample = b""
    with open_checked(path) as file:
        while len(sample) < _SAMPLE and (line := file.readline(_SAMPLE)):
            if not line.isascii():
                sample += line
    return sample[:_SAMPLE]


def guess_encoding(sample: bytes, *, is_truncated: bool = False) -> str:
    """Return the encoding with the likeliest non-ASCII characters in any of its languages; `utf-8` if none decodes the
    sample.

    A character's probability is that of its rank among the language's letters (Zipf), reduced in unusual positions: a
    letter beside a digit, a sign inside a word. ASCII is the same in all encodings and no evidence. With `is_truncated`
    the sample may end within a character.
    """
    best_score, best_name = -inf, UTF8
    for name, (prior, languages) in _CANDIDATES.items():
        try:
            text = codecs.getincrementaldecoder(name)("strict").decode(sample, final=not is_truncated)
        except UnicodeDecodeError:
            continue
        if _OTHERS.keys() >= {*languages} and not _has_words(text):
            continue
        counts, odd_count = _beyond_ascii(text)
        log_likelihood = (
            max(_log_likelihood(counts, language) for language in languages) + odd_count * _ODD_PENALTY + log(prior)
        )
        if log_likelihood > best_score:
            best_score, best_name = log_likelihood, name
    return best_name


def _has_words(text: str) -> bool:
    """True if most non-ASCII letters stand beside others, as in words of a script that is not Latin."""
    runs = [len(run) for run in _NON_ASCII_LETTERS.findall(text)]
    return 2 * sum(length for length in runs if length > 1) > sum(runs)


def _beyond_ascii(text: str) -> tuple[Counter[str], int]:
    """Return the counts of non-ASCII characters, and the number of those in unusual positions."""
    seen, odd = Counter[str](), 0
    for i, character in enumerate(text):
        if character.isascii():
            continue
        seen[character] += 1
        before, after = text[i - 1 : i], text[i + 1 : i + 2]
        if character.isupper() and before.islower():
            odd += 1
        elif character in _LETTERS:
            alone = not before.isalpha() and not after.isalpha() and character not in _WORDS
            odd += alone or before.isdigit() or after.isdigit()
        elif unicodedata.category(character)[0] in "SP":
            odd += before.isalpha() and after.isalpha() and character not in _WITHIN_WORDS
    return seen, odd


def _log_likelihood(seen: Mapping[str, int], language: str) -> float:
    known, rest = _language_model(language)
    return sum(
        count * known.get(character, _unlisted_log_probability(character, rest)) for character, count in seen.items()
    )


def _unlisted_log_probability(character: str, ideograph: float) -> float:
    """Return the log-probability of a character outside the model; ideographs and syllables are too many to list."""
    return ideograph if "\u4e00" <= character <= "\u9fff" or "\uac00" <= character <= "\ud7a3" else _UNLISTED


@cache
def _language_model(language: str) -> tuple[dict[str, float], float]:
    """Return the log-probability of each listed non-ASCII character of a language, and that of an unlisted
    ideograph."""
    if language in _COMMON:
        letters, marks, shares = _COMMON[language], _WIDE_MARKS, (0.55, 0.15)
    else:
        letters, marks = _LATIN.get(language) or _OTHERS[language], _MARKS
        shares = (0.3, 0.69) if language == "English" else (0.8, 0.15)
    known: dict[str, float] = {}
    for part, share in ((letters, shares[0]), (marks, shares[1])):
        ranked = list(dict.fromkeys(part))
        total = sum(1 / (rank + 1) for rank in range(len(ranked)))
        for rank, character in enumerate(ranked):
            known.setdefault(character, log(share / total / (rank + 1)))
    for character in letters:
        known.setdefault(character.upper(), known[character] + log(_CAPITALS))
    return known, log(0.3 / 6000) if language in _COMMON else _UNLISTED


def reads_correctly(file_encoding: str, encoding: str) -> bool:
    """True if a file in `file_encoding` is read correctly as `encoding`: ASCII is the same in all but UTF-16 and
    UTF-32."""
    return file_encoding == encoding or (file_encoding == ASCII and not encoding.startswith(("utf-16", "utf-32")))


def non_ascii_words(lines: Iterable[str]) -> tuple[str, ...]:
    """Return the first words with non-ASCII letters, by which a reader recognises a wrong guess."""
    words: dict[str, None] = {}
    for line in lines:
        words.update(dict.fromkeys(_NON_ASCII_WORD.findall(line)))
        if len(words) >= _WORDS_SHOWN:
            break
    return tuple(words)[:_WORDS_SHOWN]
