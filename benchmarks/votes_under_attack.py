"""Attacks the vote on a version: whether invented users, invented answers and repeated judgements end a canary.

A version that equals the one in production answers a share of the users of `trimtab serve` on loopback. Honest users,
known before the canary, ask and judge; an attacker who has a key of the server does what the row says. It is told how
many of the attacker's judgements the server took, how many users were counted, and how the canary stands right after,
by `trimtab canary status`. With `--before FOLDER`, an older checkout, the same requests go to its server, too.

    git archive 6a35cf82 | tar -x -C FOLDER    # before any of the defences
    python benchmarks/votes_under_attack.py --before FOLDER [--only NAME …] [--out FILE]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from trimtab.base.files import write_json

RESULT = Path(__file__).parent / "results" / "votes_under_attack.json"
ROOT = Path(__file__).resolve().parents[1]
RIGHT = 0.8  # of the answers, by honest users' judgement
PAST_DAYS = 20.0  # over which honest users came before the canary
WAIT_SECONDS = 120.0
PATIENT, HASTY = "names_users", "plain"  # names of keys: one marked as naming users, one not
TASK = """[task]
name = "votes"
kind = "classify"
instruction = "Which topic?"
[data]
examples = ["rows.jsonl"]
leakage = "report"
columns = { input = "text", output = "label" }
split = { dev = 0.2, test = 0.2, seed = 0 }
[base]
model = "smollm2-135m-q4"
[target]
margin = 0.25
latency_p95_ms = 60000
[study]
arms = ["linear"]
effort = "none"
[traffic]
share = 1.0
[upkeep]
promote = "ask"
"""
TOPICS = {"card": ("card", "visa", "pin", "chip"), "money": ("transfer", "cash", "fee", "euro")}
Reply = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Attack:
    """An attack: `honest` users judge before the canary and in it; `run` is what the attacker does then."""

    name: str
    says: str
    share: float
    honest: int
    run: Callable[[Site], None]
    prepare: Callable[[Site], None] | None = None


@dataclass(kw_only=True)
class Site:
    """A server of one checkout with its task, and what the attacker's judgements came to."""

    source: Path
    folder: Path
    keys: dict[str, str]
    url: str = ""
    sent: int = 0
    taken: int = 0
    random: random.Random = field(default_factory=lambda: random.Random(0))

    def trimtab(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the checkout."""
        return subprocess.run(
            [sys.executable, "-m", "trimtab", *words],
            cwd=self.folder,
            env=_environment(self.source),
            capture_output=True,
            text=True,
            check=False,
        )

    def ask(self, user: str, key: str = PATIENT) -> Reply:
        """Ask as a user."""
        body = {
            "model": "production",
            "messages": [{"role": "user", "content": f"about card, says {user}"}],
            "user": user,
        }
        reply = self._post("/v1/chat/completions", body, key)
        found: Reply = reply.raise_for_status().json() | {"asked": body["messages"]}
        return found

    def judge(self, user: str, reply: Reply, *, likes: bool, key: str = PATIENT, **more: Any) -> bool:
        """Judge an answer, in the form that the checkout takes; return whether it did."""
        given, text = reply["trimtab"], reply["choices"][0]["message"]["content"]
        known = {"receipt": given["receipts"][0]} if "receipts" in given else None
        answer = known or {"model": reply["model"], "version": given["release"]["version"]}
        kind = "like" if likes else "dislike"
        body = {"kind": kind, "messages": reply["asked"], "answers": [{**answer, "text": text}], "user": user, **more}
        return self._post("/feedback", body, key).status_code == 200

    def attack(self, judged: bool) -> None:
        """Count a judgement of the attacker."""
        self.sent += 1
        self.taken += judged

    def honest(self, users: int) -> None:
        """Let honest users ask and judge, both versions alike."""
        draws = [self.random.random() < RIGHT for _ in range(users)]

        def one(number: int) -> None:
            user = f"honest-{number}"
            self.judge(user, self.ask(user), likes=draws[number])

        _at_once(one, range(users))

    def _post(self, path: str, body: dict[str, Any], key: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.keys[key]}"}
        return httpx.post(f"{self.url}{path}", json=body, headers=headers, timeout=60)


def _at_once(work: Callable[[int], None], numbers: Sequence[int]) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, numbers))


def invented(count: int, key: str, prefix: str = "invented") -> Callable[[Site], None]:
    """Invent users who ask once and praise the candidate alone."""

    def run(site: Site) -> None:
        def one(number: int) -> None:
            user = f"{prefix}-{number}"
            reply = site.ask(user, key)
            site.attack(site.judge(user, reply, likes=_version(reply) == 2, key=key))

        _at_once(one, range(count))

    return run


def condemned(count: int) -> Callable[[Site], None]:
    """Invent users until so many of them were answered by the candidate, and condemn it."""

    def run(site: Site) -> None:
        number = 0
        while site.sent < count:
            user, number = f"false-{number}", number + 1
            reply = site.ask(user)
            if _version(reply) == 2:
                site.attack(site.judge(user, reply, likes=False))

    return run


def never_given(site: Site) -> None:
    """Judge answers that nobody was given: a text of one's own, under 500 names."""
    reply = site.ask("scout")
    for number in range(500):
        user = f"absent-{number}"
        made_up = {**reply, "choices": [{"message": {"content": f"an answer of my own, number {number}"}}]}
        release = {**reply["trimtab"]["release"], "version": 1 + number % 2}
        made_up["trimtab"] = {**reply["trimtab"], "release": release}
        site.attack(site.judge(user, made_up, likes=number % 2 == 1))


def replayed(site: Site) -> None:
    """One honest user of the candidate sends one judgement a thousand times, each time as another visit."""
    user, reply = _taken(site)
    for number in range(1_000):
        site.attack(site.judge(user, reply, likes=False, session=f"visit-{number}"))


def changed(site: Site) -> None:
    """One honest user of the candidate changes one judgement back and forth a hundred times."""
    user, reply = _taken(site)
    for number in range(101):
        site.attack(site.judge(user, reply, likes=number % 2 == 1, session="visit"))


def _taken(site: Site) -> tuple[str, Reply]:
    """Return a user whom the candidate answers, and the answer."""
    for number in range(1_000):
        reply = site.ask(user := f"honest-{number}")
        if _version(reply) == 2:
            return user, reply
    raise RuntimeError("the candidate answers nobody")


def _version(reply: Reply) -> int:
    return int(reply["trimtab"]["release"]["version"])


ATTACKS = [
    Attack(name="none", says="nobody attacks", share=0.5, honest=300, run=invented(0, PATIENT)),
    Attack(
        name="one_key",
        says="one key, 500 invented names, each praises the candidate and condemns production",
        share=0.5,
        honest=0,
        run=invented(500, HASTY),
    ),
    Attack(
        name="crowd",
        says="the same with a key that names users: a sudden crowd",
        share=0.5,
        honest=60,
        run=invented(500, PATIENT),
    ),
    Attack(
        name="prepared",
        says="the same with a key that names users, the names used for twenty days before",
        share=0.5,
        honest=60,
        prepare=invented(500, PATIENT),
        run=invented(500, PATIENT),
    ),
    Attack(
        name="five_false", says="5 false names beside 300 users condemn it", share=0.1, honest=300, run=condemned(5)
    ),
    Attack(
        name="forty_false", says="40 false names beside 300 users condemn it", share=0.1, honest=300, run=condemned(40)
    ),
    Attack(
        name="never_given",
        says="500 judgements of answers that nobody was given",
        share=0.5,
        honest=0,
        run=never_given,
    ),
    Attack(name="replayed", says="one judgement of one user, sent 1,000 times", share=0.5, honest=300, run=replayed),
    Attack(name="changed", says="one judgement of one user, changed 100 times", share=0.5, honest=300, run=changed),
]


def attacked(attack: Attack, source: Path, prepared: Path) -> dict[str, Any]:
    """Run one attack against the server of one checkout."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(shutil.copytree(prepared, Path(scratch) / "task"))
        site = Site(source=source, folder=folder, keys=_keys(folder / "keys.json"))
        with _serving(site):
            site.honest(attack.honest)
            if attack.prepare is not None:
                attack.prepare(site)
            if attack.honest:
                _age(folder / ".trimtab")
            site.sent = site.taken = 0
            begun = site.trimtab("canary", "start", "--version", "2", "--share", str(attack.share), "--why", "a trial")
            if begun.returncode:
                raise RuntimeError(begun.stderr)
            _wait_for_candidate(site)
            started = time.monotonic()
            attack.run(site)
            seconds = time.monotonic() - started
            site.honest(attack.honest)
            status = json.loads(site.trimtab("canary", "status", "--json").stdout)
            quality = status["evidence"]["quality"]
            return {
                "attack": attack.name,
                "says": attack.says,
                "share": attack.share,
                "honest": attack.honest,
                "sent": site.sent,
                "taken": site.taken,
                "seconds": round(seconds, 1),
                "users": quality["candidate_users"] + quality["production_users"] if quality else 0,
                "outcome": status["record"]["outcome"] if status["record"] else "open",
                "why": status["record"]["why"] if status["record"] else "",
            }


def _keys(file: Path) -> dict[str, str]:
    """Write a file of two keys without limits, of which one names users."""
    keys = {name: f"tt-{name}" for name in (PATIENT, HASTY)}
    entries = [
        {
            "name": name,
            "sha256": hashlib.sha256(key.encode()).hexdigest(),
            "per_minute": 1_000_000,
            "names_users": name == PATIENT,
        }
        for name, key in keys.items()
    ]
    write_json(file, {"keys": entries})
    file.chmod(0o600)
    return keys


@contextmanager
def _serving(site: Site) -> Iterator[None]:
    """Context manager: `trimtab serve` of the checkout, in a process of its own."""
    words = ["serve", "--alias", "production", "--keys", "keys.json", "--port", "0", "--json"]
    with (
        (site.folder / "server.log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-m", "trimtab", *words],
            cwd=site.folder,
            env=_environment(site.source),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            text = ""
            for line in process.stdout or ():
                text += line
                if line.rstrip() == "}":
                    break
            site.url = json.loads(text)["url"]
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _wait_for_candidate(site: Site) -> None:
    until = time.monotonic() + WAIT_SECONDS
    while all(_version(site.ask(f"scout-{number}")) == 1 for number in range(40)):
        if time.monotonic() > until:
            raise RuntimeError("the candidate does not answer")
        time.sleep(0.5)


def _age(folder: Path) -> None:
    """Date what was stored so far back, evenly over the past PAST_DAYS days, as if its users had come then."""
    for file, table in (("feedback.db", "trimtab_judgements"), ("traffic.db", "trimtab_traffic")):
        connection = sqlite3.connect(folder / file, timeout=30)
        rows = connection.execute(f"SELECT number, at, record FROM {table} ORDER BY number").fetchall()
        for place, (number, at, text) in enumerate(rows):
            back = timedelta(days=PAST_DAYS * (1 - place / len(rows)))
            record = json.loads(text)
            record["when"] = (datetime.fromisoformat(record["when"]) - back).isoformat()
            moved = at - round(back.total_seconds() * 1e6)
            connection.execute(
                f"UPDATE {table} SET at = ?, record = ? WHERE number = ?", (moved, json.dumps(record), number)
            )
        connection.commit()
        connection.close()


def _prepared(source: Path, folder: Path) -> Path:
    """Make a task with two versions of one arm, of which one is in production."""
    folder.mkdir()
    draw = random.Random(0)
    rows = []
    for number in range(240):
        topic = draw.choice([*TOPICS])
        rows.append(
            {"text": f"about {draw.choice(TOPICS[topic])} {draw.choice(TOPICS[topic])} {number}", "label": topic}
        )
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "trimtab.toml").write_text(TASK)
    site = Site(source=source, folder=folder, keys={})
    for words in (
        ("study",),
        ("registry", "register", "linear"),
        ("registry", "register", "linear"),
        ("registry", "promote", "1", "--why", "first"),
    ):
        done = site.trimtab(*words)
        if done.returncode not in (0, 1):
            raise RuntimeError(f"{words}: {done.stderr[-500:]}")
    return folder


def _environment(source: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(source), "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}


def main() -> None:
    """Run every attack against the checkouts, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="an older checkout")
    parser.add_argument("--only", nargs="+", choices=[attack.name for attack in ATTACKS])
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    attacks = [attack for attack in ATTACKS if not given.only or attack.name in given.only]
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        sources = {"before": given.before, "after": ROOT}
        for name, source in sources.items():
            if source is None:
                continue
            prepared = _prepared(source.resolve(), Path(scratch) / name)
            result[name] = []
            for attack in attacks:
                result[name].append(attacked(attack, source.resolve(), prepared))
                print(name, json.dumps(result[name][-1]), flush=True)
    write_json(given.out, result)


if __name__ == "__main__":
    main()
