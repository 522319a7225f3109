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
EACH = {"spam": 15, "ham": 15, "promo": 12}  # messages of one hand
RARE_EACH = 8
LEET_EACH = 1
LEET = {"a": "4", "e": "3", "i": "1", "o": "0", "s": "5", "t": "7"}
SHORT = {"you": "u", "are": "r", "please": "pls", "tomorrow": "tmrw", "thanks": "thx", "because": "bc", "before": "b4"}
TAILS = ("!", " :)", " 🙂", "!!", " 👍", "...", " ❤️", " 🎉")

Slots = dict[str, list[str]]


@dataclass(frozen=True)
class Hand:
    """One way of writing a kind of message: one sentence is taken from each of the parts."""

    group: str
    label: str
    parts: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Message:
    """One row before it has an id."""

    text: str
    hand: Hand
    slice: str


class Novelty:
    """Remembers the messages that were taken and refuses those too near to one of them."""

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._holders: defaultdict[str, list[int]] = defaultdict(list)

    def admits(self, text: str) -> bool:
        """Whether the message is new; if so it is remembered."""
        grams = shingles(text)
        shared = Counter(holder for gram in grams for holder in self._holders.get(gram, ()))
        if any(both / (len(grams) + self._sizes[other] - both) > NEAR for other, both in shared.items()):
            return False
        for gram in grams:
            self._holders[gram].append(len(self._sizes))
        self._sizes.append(len(grams))
        return True


def shingles(text: str) -> set[str]:
    """The character 5-grams of the lower-cased text."""
    lowered = text.lower()
    return {lowered[start : start + 5] for start in range(max(1, len(lowered) - 4))}


def read_hands(name: str) -> list[Hand]:
    """The hands of one source file; where it lists sentences by kind alone they are dealt out to two hands."""
    source: dict[str, Any] = tomllib.loads((HERE / "source" / name).read_text(encoding="utf-8"))
    hands: list[Hand] = []
    for kind in source["kind"]:
        written = kind.get("hands") or [[part[start::2] for part in kind["parts"]] for start in (0, 1)]
        for number, parts in enumerate(written, start=1):
            label = kind["label"] if "label" in kind else source["label"]
            hands.append(Hand(f"{kind['name']}-{number}", label, tuple(tuple(part) for part in parts)))
    return hands


def compose(hand: Hand, slots: Slots, rng: random.Random) -> str:
    """One sentence from each part, with its slots filled, in the order of the parts or nearly so."""
    sentences = [rng.choice(part) for part in hand.parts]
    dice = rng.random()
    if dice < 0.08:
        sentences[0], sentences[1] = sentences[1], sentences[0]
    elif dice < 0.2 and sentences[-1]:  # one sentence alone would often fit several labels
        del sentences[0]
    text = " ".join(sentence for sentence in sentences if sentence)
    chosen = {slot: rng.choice(slots[slot]) for slot in re.findall(r"\{(\w+)\}", text)}  # one bank, one day a message
    return text.format_map(chosen)


def roughen(text: str, rng: random.Random) -> str:
    """What people do to sentences: lower case, shouting, abbreviations, slips, a smile at the end. Any label may get any of it."""
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
    """Two neighbouring letters of one longer word change places."""
    words = text.split(" ")
    places = [place for place, word in enumerate(words) if word.isalpha() and len(word) > 4]
    if places:
        place = rng.choice(places)
        word, at = words[place], rng.randrange(1, len(words[place]) - 2)
        words[place] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return " ".join(words)


def leet(text: str, rng: random.Random) -> str:
    """Letters replaced by figures in most words; links stay as they are."""
    words = text.lower().split(" ")
    respelt = ["".join(LEET.get(letter, letter) for letter in word) for word in words]
    return " ".join(
        new if ".example" not in old and rng.random() < 0.75 else old for old, new in zip(words, respelt, strict=True)
    )


def take(count: int, hand: Hand, slice_name: str, novelty: Novelty, draw: Callable[[Hand], str]) -> list[Message]:
    """Draws until `count` messages are new."""
    made: list[Message] = []
    while len(made) < count:
        text = draw(hand)
        if novelty.admits(text):
            made.append(Message(text, hand, slice_name))
    return made


def messages(rng: random.Random) -> list[Message]:
    """All messages, shuffled."""
    slots: Slots = tomllib.loads((HERE / "source" / "slots.toml").read_text(encoding="utf-8"))
    novelty = Novelty()

    def plain(hand: Hand) -> str:
        return compose(hand, slots, rng)

    def rough(hand: Hand) -> str:
        return roughen(plain(hand), rng)

    def respelt(hand: Hand) -> str:
        return leet(plain(hand), rng)

    made: list[Message] = []
    for label, each in EACH.items():
        for hand in read_hands(f"{label}.toml"):
            made += take(each, hand, "common", novelty, rough)
    for hand in read_hands("rare.toml"):
        made += take(RARE_EACH, hand, "rare", novelty, plain)
    for hand in read_hands("spam.toml"):
        made += take(LEET_EACH, hand, "rare", novelty, respelt)
    rng.shuffle(made)
    return made


def main(target: Path) -> None:
    """Writes the data file of the example into `target`."""
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
