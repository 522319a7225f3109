"""Questions that people ask, from the publisher's own sources: lists, exports of search consoles, site search,
tickets, traffic."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trimtab.base.errors import InputError
from trimtab.base.records import Hit
from trimtab.data import readers
from trimtab.data.raw_rows import RawRow
from trimtab.data.sources import read_bytes, read_text, utf16_or_32
from trimtab.measurement.facts import read
from trimtab.measurement.numerals import words
from trimtab.publishing.records import SurfaceQuestion
from trimtab.retrieval.extract import SURE, names_in
from trimtab.serving.traffic_store import ServedAnswer

MOST = 1_000  # questions that are asked: the most asked first, then a seeded draw
# cosine distance up to which groups are joined, on average over their questions (`benchmarks/surface_coverage.py`)
DISTANCE = 0.4
SAME_ANSWER = 0.6  # factor of the distance of two questions that one sentence answers
LIKELY = 0.15  # least probability of a sentence that brings questions together; from SURE on it sets others apart
APART = 1e6  # distance of questions that ask for different facts: no average with it is near
RESAMPLES, LEFT_OUT = 20, 0.2  # of the stability of groups
UNSTABLE = 0.6  # mean Jaccard index below which a group is none (Hennig 2007)
MOST_ABOVE = 10  # lines that are looked at for the header of a table
_LONGEST = 1_000  # characters of a question; a ticket is cut there

# Headers as exports have them, in small letters; a console's language decides which.
_QUESTION = frozenset(
    words(
        "question query queries keyword keywords search prompt input text frage anfrage suchanfrage suchbegriff "
        "consulta requête pergunta domanda vraag zapytanie subject betreff title"
    )
) | {
    *("top queries", "search term", "search query", "search terms", "häufigste suchanfragen"),
    *("requêtes les plus fréquentes", "principales consultas", "consultas principales", "query più frequenti"),
    *("principais consultas", "populairste zoekopdrachten", "najczęstsze zapytania", "populära frågor"),
    *("самые популярные запросы", "上位のクエリ", "热门查询", "인기 검색어"),
}
_DEMAND = frozenset(
    words(
        "impressions impressionen impresiones impressioni impressões vertoningen wyświetlenia visningar показы "
        "表示回数 展示 노출 searches count occurrences frequency anzahl volume demand tickets"
    )
) | {
    *("event count", "total searches", "total unique searches", "search count"),
    *("avg. monthly searches", "avg monthly searches", "average monthly searches"),  # Google's Keyword Planner
    *("search volume", "monthly search volume", "monthly volume"),  # Semrush, Ahrefs and others
    *("durchschn. suchanfragen pro monat", "suchvolumen"),
}
# Headers of lists of keywords that tell how a page ranks: the address in one is where it ranks, not what should answer.
_RANKING = frozenset(("position", "current position", "previous position", "keyword difficulty", "difficulty", "kd"))
_ANSWER = frozenset(("answer", "answers", "reference", "answer_text", "antwort"))
_PAGE = frozenset(("page", "url", "document", "landing page", "expected page"))
_ADDRESS = re.compile(r"https?://\S+|/\S*")
_PERCENT = re.compile(r"[\d.,\s]+\s*%")
_COMMENT = re.compile(r"#(?:\s|$)")
_SPACES = re.compile(r"[\s'’]")  # thousands are parted by spaces of any kind, or by an apostrophe


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionGroup:
    """A group of questions that ask the same. `name`: the most asked one. `members`: places in the list that was
    grouped.

    `stability`: the mean Jaccard index with the most similar group over resamples (Hennig 2007); None for one
    question alone.
    """

    name: str
    members: tuple[int, ...]
    stability: float | None


def read_questions(path: Path, encoding: str = "utf-8") -> tuple[SurfaceQuestion, ...]:
    """Read the questions of a file: one a line (.txt), or a table (.csv, .tsv, .xlsx, .parquet) or JSON rows with a
    column of questions.

    Columns are known by the headers of exports (Search Console in twelve languages, Bing, site search, keyword lists
    of Keyword Planner, Semrush and Ahrefs), else by their figures: clicks / impressions = click-through rate holds in
    every language. Demand is impressions or searches where a column has them, and is never estimated; of a range
    ("1K – 10K") the lower end counts. Raises InputError for a file without questions.
    """
    if path.suffix.lower() in (".txt", ".text", ".md"):
        lines = (line.strip().lstrip("-*").strip() for line in read_text(path, encoding).splitlines())
        found = [SurfaceQuestion(text=line[:_LONGEST], source=path.name) for line in lines if line and line[0] != "#"]
    else:
        found = list(_from_rows(path, read_table(path, encoding)))
    if not found:
        raise InputError("holds no question", "give one a line, or a table with a column `question`", file=path)
    return merged_questions(found)


def questions_of_traffic(served: Sequence[ServedAnswer]) -> tuple[SurfaceQuestion, ...]:
    """Take the last question of each conversation with a served arm. Demand: how often it was kept, over the share
    that is kept."""
    asked = (
        (turns[-1].content.strip(), answer.share)
        for answer in served
        if (turns := [turn for turn in answer.messages if turn.role == "user"])
    )
    return merged_questions(
        [
            SurfaceQuestion(text=text[:_LONGEST], source="traffic", demand=1 / share if share > 0 else None)
            for text, share in asked
            if text
        ]
    )


def merged_questions(questions: Sequence[SurfaceQuestion]) -> tuple[SurfaceQuestion, ...]:
    """Merge equal questions, whatever their case and blanks, in the order of first mention; their demands are added
    up."""
    merged: dict[str, SurfaceQuestion] = {}
    for question in questions:
        key = question_key(question.text)
        if not key:
            continue
        known = merged.get(key)
        if known is None:
            merged[key] = question
            continue
        demands = [demand for demand in (known.demand, question.demand) if demand is not None]
        merged[key] = replace(
            known,
            demand=sum(demands) if demands else None,
            references=tuple(dict.fromkeys((*known.references, *question.references))),
            page=known.page or question.page,
        )
    return tuple(merged.values())


def question_key(text: str) -> str:
    """Return what two spellings of one question have in common: no case, no blanks, no marks at the end."""
    return " ".join(text.casefold().split()).rstrip("?!. ")


def drawn_questions(
    questions: Sequence[SurfaceQuestion], most: int = MOST, seed: int = 0
) -> tuple[SurfaceQuestion, ...]:
    """Choose at most `most` questions: those with the greatest demand, then a seeded draw of those without any.
    Their order stays."""
    if len(questions) <= most:
        return tuple(questions)
    chance = np.random.default_rng(seed).permutation(len(questions))
    order = sorted(range(len(questions)), key=lambda place: (-(questions[place].demand or 0.0), chance[place]))
    return tuple(questions[place] for place in sorted(order[:most]))


def group_questions(
    texts: Sequence[str],
    vectors_ND: NDArray[np.float32],
    *,
    answers: Sequence[Hit | None] = (),
    demands: Sequence[float | None] = (),
    distance: float = DISTANCE,
    seed: int = 0,
) -> tuple[QuestionGroup, ...]:
    """Group questions that ask the same by average linkage of their distances (Sokal and Michener 1958), joined up to
    `distance`; the largest first. A group has the name of its most asked question, of equals the one nearest to the
    middle.

    `vectors_ND`: of length 1. `answers`: the sentence that most likely answers each question, its score a probability.
    Stability: in each of 20 resamples a fifth of the questions is left out and the rest grouped anew.
    """
    if not texts:
        return ()
    distances_NN = question_distances(texts, vectors_ND, answers)
    codes = linked_codes(distances_NN, distance)
    members = [np.flatnonzero(codes == code) for code in np.unique(codes)]
    stability = _stabilities(members, distances_NN, distance, seed)
    groups = []
    for places, stable in zip(members, stability, strict=True):
        nearness = vectors_ND[places] @ vectors_ND[places].mean(axis=0)
        asked = [(demands[int(place)] or 0.0) if demands else 0.0 for place in places]
        named = max(range(len(places)), key=lambda number: (asked[number], nearness[number]))
        groups.append(QuestionGroup(name=texts[int(places[named])], members=tuple(map(int, places)), stability=stable))
    return tuple(sorted(groups, key=lambda group: (-len(group.members), group.members)))


def question_distances(
    texts: Sequence[str], vectors_ND: NDArray[np.float32], answers: Sequence[Hit | None] = ()
) -> NDArray[np.float64]:
    """Compute how far questions are from asking the same, [N, N]: the cosine distance, shorter where one sentence
    answers both.

    They are APART where each has a figure or a name that the other lacks, and where different sentences surely answer.
    """
    distances_NN = np.clip(1.0 - vectors_ND.astype(np.float64) @ vectors_ND.T, 0.0, 2.0)
    if answers:
        likely_N, sure_N = (_answer_codes(answers, least) for least in (LIKELY, SURE))
        distances_NN[(likely_N[:, None] == likely_N) & (likely_N >= 0)] *= SAME_ANSWER
        distances_NN[(sure_N[:, None] != sure_N) & (sure_N[:, None] >= 0) & (sure_N >= 0)] = APART
    for facts in ([_figures(text) for text in texts], [names_in(text) for text in texts]):
        holding = [place for place, present in enumerate(facts) if present]
        for one in holding:
            others = [other for other in holding if facts[one] - facts[other] and facts[other] - facts[one]]
            distances_NN[one, others] = APART
    np.fill_diagonal(distances_NN, 0.0)
    return distances_NN


def _answer_codes(answers: Sequence[Hit | None], least: float) -> NDArray[np.intp]:
    """Number the sentences that answer with probability `least` or more; -1 for a question without one."""
    numbers: dict[str, int] = {}
    codes = [
        numbers.setdefault(answer.passage.id, len(numbers)) if answer is not None and answer.score >= least else -1
        for answer in answers
    ]
    return np.array(codes, dtype=np.intp)


def _figures(text: str) -> frozenset[str]:
    """Return the numbers, dates, times and codes of a question that are written in digits."""
    tokens = read(text) if any(map(str.isdigit, text)) else ()
    return frozenset(token.value for token in tokens if any(map(str.isdigit, token.value)))


def linked_codes(distances_NN: NDArray[np.float64], distance: float) -> NDArray[np.intp]:
    """Return the group of each question as a number."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    if len(distances_NN) == 1:
        return np.ones(1, dtype=np.intp)
    return np.asarray(
        fcluster(linkage(squareform(distances_NN, checks=False), "average"), distance, "distance"), dtype=np.intp
    )


def _stabilities(
    members: Sequence[NDArray[np.intp]], distances_NN: NDArray[np.float64], distance: float, seed: int
) -> list[float | None]:
    """Compute for each group the mean over resamples of the largest Jaccard index with a group there, among the
    questions that were drawn."""
    n, random = len(distances_NN), np.random.default_rng(seed)
    sums, counts = np.zeros(len(members)), np.zeros(len(members))
    for _ in range(RESAMPLES if n > 2 else 0):
        drawn_places = np.sort(random.permutation(n)[: max(2, round(n * (1 - LEFT_OUT)))])
        code_of = np.full(n, -1, dtype=np.intp)
        code_of[drawn_places] = linked_codes(distances_NN[np.ix_(drawn_places, drawn_places)], distance)
        sizes = np.bincount(code_of[drawn_places])
        for number, places in enumerate(members):
            inside = code_of[places]
            inside = inside[inside >= 0]
            if len(inside):
                common = np.bincount(inside, minlength=len(sizes))
                sums[number] += float((common / np.maximum(len(inside) + sizes - common, 1)).max())
                counts[number] += 1
    return [
        float(sums[number] / counts[number]) if len(places) > 1 and counts[number] else None
        for number, places in enumerate(members)
    ]


# ---- tables


Table = list[tuple[int, dict[str, str | list[str]]]]


def read_table(path: Path, encoding: str = "utf-8") -> Table:
    """Return the rows of a file by their columns, each with its line. Raises InputError for one that cannot be read."""
    if path.name.lower().removesuffix(".gz").endswith((".csv", ".tsv")):
        return list(_csv(path, encoding))
    found: Table = []
    for row in readers.read_raw_rows(path, encoding):
        if not isinstance(row, RawRow):
            raise InputError(row.reason, row.remedy, file=row.file, line=row.line)
        found.append((row.line, {name: _cell(value) for name, value in row.fields.items()}))
    return found


def _cell(value: object) -> str | list[str]:
    if isinstance(value, list | tuple):
        return [str(part) for part in value]
    return "" if value is None else str(value)


def _csv(path: Path, encoding: str) -> Iterator[tuple[int, dict[str, str | list[str]]]]:
    """Read a table in text: in UTF-16 and parted by tabs or semicolons too, with lines of comment, and totals that
    no question stands before."""
    wide = utf16_or_32(read_bytes(path)[:4096])
    text = read_text(path, wide or encoding)
    first = list(islice((line for line in io.StringIO(text) if line.strip() and not _COMMENT.match(line)), MOST_ABOVE))
    # Some exports begin with a title and the dates.
    head = next((line for line in first if _names_questions(line)), first[0] if first else "")
    above = text.partition(head)[0] if head and head != first[0] else ""
    reader = csv.reader(io.StringIO(text.removeprefix(above), newline=""), delimiter=max("\t;,", key=head.count))
    skipped = above.count("\n")
    header: list[str] = []
    while True:
        line = skipped + reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise InputError(
                f"not valid CSV ({error})", 'write a quote inside a quoted field as ""', file=path, line=line
            ) from None
        if cells is None:
            return
        numbers_rows = cells[:1] == ["#"] and len(cells) > 1  # a header, and no comment
        if not any(cell.strip() for cell in cells) or (_COMMENT.match(cells[0]) and not numbers_rows):
            continue
        if not header:
            header = cells
        elif len(cells) <= len(header):
            yield line, dict(zip(header, cells, strict=False))
        elif cells[0].strip():
            raise InputError(
                f"{len(cells)} fields where the header has {len(header)}",
                "put text that holds the separator in double quotes",
                file=path,
                line=line,
            )


def _names_questions(line: str) -> bool:
    """True if a line has several cells and one of them is a header of questions."""
    cells = line.strip().split(max("\t;,", key=line.count))
    return len(cells) > 1 and column_named([cell.strip('"') for cell in cells], _QUESTION) is not None


def _from_rows(path: Path, rows: Table) -> Iterator[SurfaceQuestion]:
    if not rows:
        return
    names = list(dict.fromkeys(chain.from_iterable(row for _, row in rows)))
    columns = {name: [_text(row.get(name, "")) for _, row in rows] for name in names}
    text, demand = _question_column(path, columns), _demand_column(columns)
    answer = column_named(columns, _ANSWER)
    page = None if column_named(columns, _RANKING) else column_named(columns, _PAGE)
    for line, row in rows:
        asked = _text(row.get(text, "")).strip()
        if not asked:
            continue
        counted = _text(row.get(demand, "")).strip() if demand else ""
        number = count(counted) if counted else None
        if counted and number is None:
            raise InputError(
                f"{counted[:40]!r} is no number of impressions or searches",
                "correct it, or take the column out",
                file=path,
                line=line,
                field=demand,
            )
        given = row.get(answer, "") if answer else ""
        yield SurfaceQuestion(
            text=asked[:_LONGEST],
            source=path.name,
            demand=number,
            references=tuple(part for part in (given if isinstance(given, list) else [given]) if part.strip()),
            page=(_text(row.get(page, "")).strip() or None) if page else None,
        )


def _text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else " ".join(value)


def column_named(columns: Iterable[str], names: frozenset[str]) -> str | None:
    """Return the first column whose header is one of `names`, in small letters; None without one."""
    return next((name for name in columns if name.strip().lstrip("\ufeff").casefold() in names), None)


def _question_column(path: Path, columns: Mapping[str, Sequence[str]]) -> str:
    """Find the column of questions: by its header, else the only one that is neither figures nor addresses."""
    named = column_named(columns, _QUESTION)
    if named is not None:
        return named
    worded = [name for name, cells in columns.items() if _is_text(cells)]
    if len(worded) == 1:
        return worded[0]
    pages = [
        name for name, cells in columns.items() if cells and all(_ADDRESS.fullmatch(cell) for cell in cells if cell)
    ]
    if pages and not worded:
        raise InputError("lists pages and no questions", "export its table of queries", file=path, field=pages[0])
    raise InputError(
        f"has no column of questions that can be told ({', '.join(list(columns)[:8])})",
        "name it `question`",
        file=path,
    )


def _is_text(cells: Sequence[str]) -> bool:
    filled = [cell.strip() for cell in cells if cell.strip()]
    return bool(filled) and all(
        count(cell) is None and not _PERCENT.fullmatch(cell) and not _ADDRESS.fullmatch(cell) for cell in filled
    )


def _demand_column(columns: Mapping[str, Sequence[str]]) -> str | None:
    """Find the column of impressions or searches: by its header, else by what must hold: clicks / impressions = the
    column of percentages."""
    named = column_named(columns, _DEMAND)
    if named is not None:
        return named
    rates = [
        name for name, cells in columns.items() if cells and all(_PERCENT.fullmatch(cell.strip()) for cell in cells)
    ]
    counted = {name: values for name, cells in columns.items() if (values := _counts(cells)) is not None}
    for rate in rates:
        shares = [(decimal(cell.rstrip().rstrip("%")) or 0.0) / 100 for cell in columns[rate]]
        for clicks, shown in ((a, b) for a in counted for b in counted if a != b):
            if _is_rate(counted[clicks], counted[shown], shares):
                return shown
    return None


def _is_rate(clicks: Sequence[float], shown: Sequence[float], shares: Sequence[float]) -> bool:
    """Return True if clicks / impressions are the shares, as they are rounded in exports, and not all are 0."""
    holds = all(
        n > 0 and c <= n and abs(c / n - share) <= 0.006 for c, n, share in zip(clicks, shown, shares, strict=True)
    )
    return holds and any(clicks)


def _counts(cells: Sequence[str]) -> list[float] | None:
    values = [value for cell in cells if (value := count(cell)) is not None]
    return values if len(values) == len(cells) else None


def count(text: str) -> float | None:
    """Read a whole number as exports write it: thousands parted by a comma, a point, a blank or an apostrophe, or as
    in "1.2K"; of a range its lower end. None for anything else."""
    plain = _SPACES.sub("", text)
    if plain in ("-", "–", "—"):  # of a list: no searches were counted
        return 0.0
    short = re.fullmatch(r"(\d+(?:[.,]\d+)?)([KM]?)(?:\+|[-–—]\d+(?:[.,]\d+)?[KM]?)?", plain, re.I)
    if short and not re.fullmatch(r"[\d.,]+", plain):
        return float(short[1].replace(",", ".")) * {"": 1, "k": 1e3, "m": 1e6}[short[2].lower()]
    if re.fullmatch(r"\d+", plain):
        return float(plain)
    if re.fullmatch(r"\d{1,3}(?:([.,])\d{3})(?:\1\d{3})*", plain):
        return float(re.sub(r"[.,]", "", plain))
    if re.fullmatch(r"\d+[.,]0+", plain):  # a table program has made decimals of it
        return float(re.split(r"[.,]", plain)[0])
    return None


def decimal(text: str) -> float | None:
    """Read a number with a decimal point or comma, whichever stands last; None for anything else."""
    plain = _SPACES.sub("", text)
    if not re.fullmatch(r"\d[\d.,]*", plain):
        return None
    whole, _, rest = plain.replace(",", ".").rpartition(".")
    return float(f"{whole.replace('.', '')}.{rest}") if whole else float(rest)
