"""Writes `messages.jsonl` from the hand-written sentences in `source/`, combined and roughened by a seeded generator.

Run `python make.py` to rewrite the file beside this script, or `python make.py FOLDER` to write it elsewhere.
"""

import json
import random
import re
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEED = 20262
HERE = Path(__file__).resolve().parent
NEAR = 0.65  # messages whose character 5-grams overlap more (Jaccard) than this count as near duplicates
EACH = 6  # messages of one hand; of a hand of spam the last is in leetspeak
DEALT = 4  # rare sentences are listed by kind: one hand for so many openings, at least two
OPENED, CLOSED = 0.6, 0.8  # shares of common messages with a formula before, and after
OWN = 0.92  # of a hand's formulas, how many are surely of its own label
GREETING = re.compile(r"(hi|hey|hello|dear|good|morning)\b|.*[,:]$", re.IGNORECASE)  # needs no other before it
LEET = {"a": "4", "e": "3", "i": "1", "o": "0", "s": "5", "t": "7"}
SHORT = {"you": "u", "are": "r", "please": "pls", "tomorrow": "tmrw", "thanks": "thx", "because": "bc", "before": "b4"}
TAILS = ("!", " :)", " 🙂", "!!", " 👍", "...", " ❤️", " 🎉")

Lists = dict[str, list[str]]


@dataclass(frozen=True)
class Hand:
    """One writer of a kind of message: one sentence is drawn from each of the parts."""

    group: str
    label: str
    parts: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class SpamMessage:
    """One row before it has an id."""

    text: str
    hand: Hand
    slice: str


class Novelty:
    """Remembers the accepted messages and refuses those too similar to one of them."""

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._holders: defaultdict[str, list[int]] = defaultdict(list)

    def admits(self, text: str) -> bool:
        """Return whether the message is new; if so, remember it."""
        grams = shingles(text)
        shared = Counter(holder for gram in grams for holder in self._holders.get(gram, ()))
        if any(both / (len(grams) + self._sizes[other] - both) > NEAR for other, both in shared.items()):
            return False
        for gram in grams:
            self._holders[gram].append(len(self._sizes))
        self._sizes.append(len(grams))
        return True


def shingles(text: str) -> set[str]:
    """Return the character 5-grams of the lower-cased text."""
    lowered = text.lower()
    return {lowered[start : start + 5] for start in range(max(1, len(lowered) - 4))}


def read(name: str) -> dict[str, Any]:
    """Read a file of `source/`."""
    return tomllib.loads((HERE / "source" / name).read_text(encoding="utf-8"))


def read_hands(name: str) -> list[Hand]:
    """Return the writers of one source file; sentences that it lists by kind alone are divided among writers."""
    source = read(name)
    hands: list[Hand] = []
    for kind in source["kind"]:
        written = kind.get("hands") or deal(kind["parts"])
        for number, parts in enumerate(written, start=1):
            label = kind["label"] if "label" in kind else source["label"]
            hands.append(Hand(f"{kind['name']}-{number}", label, tuple(tuple(part) for part in parts)))
    return hands


def deal(parts: list[list[str]]) -> list[list[list[str]]]:
    """Divide sentences into writers of about equal size, each with sentences of its own."""
    hands = max(2, len(parts[0]) // DEALT)
    return [[part[start::hands] for part in parts] for start in range(hands)]


def compose(hand: Hand, rng: random.Random) -> list[str]:
    """Draw one sentence from each part."""
    return [rng.choice(part) for part in hand.parts]


def frame(sentences: list[str], label: str, formulas: dict[str, Lists], rng: random.Random) -> list[str]:
    """Put the sentences between formulas: a greeting, a farewell, the small print."""

    def draw(lists: Lists, share: float) -> list[str]:
        if rng.random() >= share:
            return []
        return [rng.choice(lists[label if rng.random() < OWN else rng.choice(list(lists))])]

    opening = [] if GREETING.match(sentences[0]) else draw(formulas["opening"], OPENED)
    return [*opening, *sentences, *draw(formulas["closing"], CLOSED)]


def fill(sentences: list[str], slots: Lists, rng: random.Random) -> str:
    """Return the text of a message with every slot filled."""
    text = " ".join(sentence for sentence in sentences if sentence)
    chosen = {slot: rng.choice(slots[slot]) for slot in re.findall(r"\{(\w+)\}", text)}  # one bank, one day a message
    return text.format_map(chosen)


def roughen(text: str, rng: random.Random) -> str:
    """Add the habits of real writers: lower case, shouting, abbreviations, typing errors, a smiley. Any label may get
    any of them."""
    if rng.random() < 0.14:
        text = re.sub(r"\w+", lambda match: SHORT.get(match[0].lower(), match[0]), text)
    dice = rng.random()
    if dice < 0.16:
        text = text.lower()
    elif dice < 0.20:
        text = text.upper()
    if rng.random() < 0.12:
        text = slip(text, rng)
    if rng.random() < 0.15:
        text = text.rstrip(".!") + rng.choice(TAILS)
    elif rng.random() < 0.15:
        text = text.rstrip(".")
    return text


def slip(text: str, rng: random.Random) -> str:
    """Swap two neighbouring letters of one longer word."""
    words = text.split(" ")
    places = [place for place, word in enumerate(words) if word.isalpha() and len(word) > 4]
    if places:
        place = rng.choice(places)
        word, at = words[place], rng.randrange(1, len(words[place]) - 2)
        words[place] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return " ".join(words)


def leet(text: str, rng: random.Random) -> str:
    """Replace letters by digits in most words; links stay as they are."""
    words = text.lower().split(" ")
    respelt = ["".join(LEET.get(letter, letter) for letter in word) for word in words]
    return " ".join(
        new if ".example" not in old and rng.random() < 0.75 else old for old, new in zip(words, respelt, strict=True)
    )


def take(count: int, hand: Hand, slice_name: str, novelty: Novelty, draw: Callable[[Hand], str]) -> list[SpamMessage]:
    """Draw until `count` messages are new."""
    made: list[SpamMessage] = []
    while len(made) < count:
        text = draw(hand)
        if novelty.admits(text):
            made.append(SpamMessage(text, hand, slice_name))
    return made


def messages(rng: random.Random) -> list[SpamMessage]:
    """Return all messages, shuffled."""
    slots: Lists = read("slots.toml")
    formulas: dict[str, Lists] = read("formulas.toml")
    novelty = Novelty()

    def plain(hand: Hand) -> str:
        return fill(compose(hand, rng), slots, rng)

    def rough(hand: Hand) -> str:
        return roughen(fill(frame(compose(hand, rng), hand.label, formulas, rng), slots, rng), rng)

    def respelt(hand: Hand) -> str:
        return leet(plain(hand), rng)

    made: list[SpamMessage] = []
    for hand in read_hands("spam.toml"):
        made += take(EACH - 1, hand, "common", novelty, rough)
        made += take(1, hand, "rare", novelty, respelt)
    for label in ("ham", "promo"):
        for hand in read_hands(f"{label}.toml"):
            made += take(EACH, hand, "common", novelty, rough)
    for hand in read_hands("rare.toml"):
        made += take(EACH, hand, "rare", novelty, plain)
    rng.shuffle(made)
    return made


def main(target: Path) -> None:
    """Write the data file of the example into `target`."""
    rows = [
        {
            "id": f"m{number:04}",
            "input": message.text,
            "label": message.hand.label,
            "slice": message.slice,
            "group": message.hand.group,
        }
        for number, message in enumerate(messages(random.Random(SEED)), start=1)
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (target / "messages.jsonl").write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
