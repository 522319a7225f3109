"""The demo `trimtab demo upkeep`: an arm in production, changed documents, a refresh and two canaries, run by real
commands."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import httpx

from trimtab.base.errors import EXIT_NO, PackageError, RemoteError
from trimtab.base.files import write_atomic
from trimtab.base.metrics import default_metric
from trimtab.base.show import Shown
from trimtab.reports.page import render_page

TASK = "upkeep.toml"
USERS = 80
QUESTIONS_PER_USER = 6  # questions of each user, judged against the right answer
SHARE = 0.5  # share of users who get a candidate; large, as there are few users
QUESTION = "Who may work from home?"  # asked to see which version answers
WAIT_SECONDS = 120.0  # seconds for a server to start, and for a candidate to answer beside it
PAGE = "upkeep.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryStep:
    """One step: what happens, the command that was run (empty for events), and its output."""

    title: str
    command: str
    output: str
    code: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class UpkeepStory(Shown):
    """The story as it was run. `same_answers`: True if the answers after the bad candidate equal those before it, byte
    for byte."""

    folder: str
    page: str
    steps: tuple[StoryStep, ...]
    promoted: bool
    rolled_back: bool
    same_answers: bool

    @property
    def headline(self) -> str:
        """Return the end of the story in one line."""
        if self.promoted and self.rolled_back and self.same_answers:
            return (
                "The new version came into production, the bad one was taken back, and the answers are those of "
                "before, byte for byte."
            )
        return "The story did not end as it should; its page says at which step."


def play(folder: Path) -> UpkeepStory:
    """Run the story in a folder, into which the handbook is copied; raises InputError if the folder holds something
    else."""
    from trimtab.base.task import load_task
    from trimtab.studies.demo import copy_demo, fetch_model, update_demo

    for package in ("fastapi", "uvicorn", "sqlalchemy"):
        if find_spec(package) is None:
            raise PackageError(package, "serve", "trimtab demo upkeep")
    copy_demo("handbook", folder, cut=False)
    file = folder / TASK
    task = load_task(file)
    for model in (task.base.model, task.base.embedding):
        fetch_model(model, folder)
    story = _Story(file)
    rows = _rows(folder / "questions.jsonl")
    story.run("A study measures the arm", "study")
    story.run("It becomes version 1", "registry", "register", "extract")
    story.run("Version 1 goes into production", "registry", "promote", "1", "--why", "first")
    with story.serving() as server:
        server.simulate_users("80 users ask six questions each, and judge the answers", rows, seed=1)
        story.run("Has anything changed?", "drift")
        changed = update_demo("handbook", folder)
        story.add_event("The handbook's next edition comes out", f"changed, new or gone: {', '.join(changed)}")
        rows = _rows(folder / "questions.jsonl")
        new = _rows(folder / "questions-2026-10.jsonl")
        story.run("Has anything changed?", "drift", "--page", str(folder / "drift.html"))
        story.run("What would a refresh do?", "refresh", "--dry-run")
        story.run("The next version is made, and held against production", "refresh")
        story.run("It answers half of the users", "canary", "start", "--share", str(SHARE), "--days", "1")
        promoted = server.promote_held(server.canary(new, seed=2))
        before = server.answers(new)
        number = story.register_bad_version(folder)
        story.run(
            "Somebody tries it, past the gate",
            *("canary", "start", "--version", number, "--share", str(SHARE), "--days", "1", "--why", "by hand"),
        )
        rolled_back = "rolled back" in server.canary(rows, seed=3)
        same = server.answers(new) == before
        story.add_event(
            "What is served now", "byte for byte the answers of before" if same else "other answers than before"
        )
    story.run("What happened", "registry", "history")
    story.run("From data to versions", "registry", "lineage", "--page", str(folder / "lineage.html"))
    return story.finish(promoted=promoted, rolled_back=rolled_back, same=same)


def _rows(file: Path) -> list[dict[str, Any]]:
    """Return questions with their right answers."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@dataclass
class _Story:
    """The steps so far; each is printed as it comes."""

    file: Path
    steps: list[StoryStep] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def run(self, title: str, *words: str, file: Path | None = None) -> StoryStep:
        """Run a command as a user would type it."""
        arguments = [*words, "--task", str(file or self.file)]
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "trimtab", *arguments],
            capture_output=True,
            text=True,
            env=_environment(),
            check=False,
        )
        output = done.stdout.strip() or (done.stderr.strip().splitlines() or [""])[-1]
        if done.returncode not in (0, EXIT_NO):
            raise RemoteError(f"trimtab {words[0]} ended with {done.returncode}: {output}")
        return self._add(title, shlex.join(["trimtab", *arguments]), output, done.returncode, began)

    def add_event(self, title: str, output: str, began: float | None = None) -> StoryStep:
        """Add a step that is no command: what users or the world did."""
        return self._add(title, "", output, 0, time.monotonic() if began is None else began)

    def _add(self, title: str, command: str, output: str, code: int, began: float) -> StoryStep:
        step = StoryStep(
            title=title, command=command, output=output, code=code, seconds=round(time.monotonic() - began, 1)
        )
        self.steps.append(step)
        at = time.monotonic() - self.began
        sys.stderr.write(f"\n[{at:4.0f} s] {title}\n")
        sys.stderr.write(f"$ {command}\n" if command else "")
        sys.stderr.write("".join(f"    {line}\n" for line in output.splitlines()))
        return step

    def register_bad_version(self, folder: Path) -> str:
        """Measure and register a version whose documents have wrong numbers; return its number."""
        with tempfile.TemporaryDirectory(dir=folder, prefix="poisoned-") as scratch:
            copy = Path(scratch)
            for item in ("documents", "questions.jsonl", TASK):
                source = folder / item
                (shutil.copytree if source.is_dir() else shutil.copyfile)(source, copy / item)
            shutil.copytree(folder / ".trimtab", copy / ".trimtab", ignore=shutil.ignore_patterns("*.db*", "served"))
            for document in (copy / "documents").iterdir():
                text = document.read_text(encoding="utf-8")
                document.write_text(re.sub(r"\d", lambda digit: str((int(digit[0]) + 3) % 10), text), encoding="utf-8")
            file = copy / TASK
            self.run("A bad version: in its documents every figure is wrong", "study", file=file)
            home = (folder / ".trimtab").absolute()
            registered = self.run(
                "It is registered",
                *("registry", "register", "extract", "--registry", str(home / "registry.db")),
                file=file,
            )
        return registered.output.partition(":")[0].removeprefix("version ")

    @contextmanager
    def serving(self) -> Iterator[_Server]:
        """Context manager: a server that follows production."""
        words = ["serve", "--alias", "production", "--port", "0", "--json", "--task", str(self.file)]
        began = time.monotonic()
        with (
            tempfile.TemporaryFile("w+") as log,
            subprocess.Popen(
                [sys.executable, "-m", "trimtab", *words],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=_environment(),
            ) as process,
        ):
            try:
                add_event = _first_object(process.stdout)
                if add_event is None or "url" not in add_event:
                    log.seek(0)
                    why = (add_event or {}).get("error") or log.read().strip()[-300:]
                    raise RemoteError(f"the server of the story did not begin: {why}")
                self._add("A server follows production", shlex.join(["trimtab", *words]), add_event["url"], 0, began)
                headers = {"Authorization": f"Bearer {add_event['token']}"}
                with httpx.Client(base_url=add_event["url"], headers=headers, timeout=60) as client:
                    yield _Server(self, client)
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()

    def finish(self, *, promoted: bool, rolled_back: bool, same: bool) -> UpkeepStory:
        """Return the whole story, and write its page."""

        page = self.file.parent / PAGE
        done = UpkeepStory(
            folder=str(self.file.parent),
            page=str(page),
            steps=tuple(self.steps),
            promoted=promoted,
            rolled_back=rolled_back,
            same_answers=same,
        )
        add_event = [(one.title, one.command, one.output, one.seconds) for one in self.steps]
        write_atomic(page, render_story("Upkeep of the handbook", done.headline, add_event))
        return done


@dataclass(frozen=True)
class _Server:
    """The server, and simulated users who ask and judge its answers against the right ones."""

    story: _Story
    client: httpx.Client

    def simulate_users(self, title: str, rows: Sequence[dict[str, Any]], *, seed: int) -> None:
        """Let every user ask questions and judge the answers."""
        began = time.monotonic()
        draw = random.Random(seed)
        counts: dict[int, list[bool]] = {}
        for user in range(USERS):
            for row in draw.sample(rows, min(QUESTIONS_PER_USER, len(rows))):
                version, right = self._ask_and_judge(f"user-{user}", row)
                counts.setdefault(version, []).append(right)
        said = "; ".join(
            f"version {version} answered {len(given)}, {sum(given) / len(given):.0%} of them right"
            for version, given in sorted(counts.items())
        )
        self.story.add_event(title, said, began)

    def canary(self, rows: Sequence[dict[str, Any]], *, seed: int) -> str:
        """Let users ask until the canary has ended; return what its status says then, empty if it goes on."""
        self._wait_for_candidate()
        for turn in range(5):
            self.simulate_users("Users ask, half of them the candidate, and judge", rows, seed=seed + 10 * turn)
            step = self.story.run("What do they say?", "canary", "status")
            if "goes on" not in step.output and "open for" not in step.output:
                return step.output
        return ""

    def promote_held(self, status: str) -> bool:
        """Promote the candidate that a status says is held, as a person would; return False if none is."""
        held = re.search(r"registry promote (\d+)", status)
        if held is None:
            return False
        why = "a person has read what the users say"
        self.story.run("A person decides", "registry", "promote", held[1], "--why", why)
        until = time.monotonic() + WAIT_SECONDS
        while self._ask(None, {"question": QUESTION})["trimtab"]["release"]["version"] != int(held[1]):
            if time.monotonic() > until:
                raise RemoteError(f"version {held[1]} of the story did not answer once it was promoted")
            time.sleep(1)
        return True

    def answers(self, rows: Sequence[dict[str, Any]]) -> list[str]:
        """Return the answers to requests without a user, which production gives."""
        return [json.dumps(self._ask(None, row)["choices"], sort_keys=True) for row in rows[:20]]

    def _wait_for_candidate(self) -> None:
        """Wait until the candidate answers some users."""
        row = {"question": QUESTION}
        until = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < until:
            seen = {self._ask(f"user-{user}", row)["trimtab"]["release"]["version"] for user in range(12)}
            if len(seen) > 1:
                return
            time.sleep(1)
        raise RemoteError("the candidate of the story did not answer beside production")

    def _ask_and_judge(self, user: str, row: dict[str, Any]) -> tuple[int, bool]:
        """Ask a question as a user and judge the answer; return the version that gave it, and whether it was right."""
        from trimtab.measurement.metrics import score_answer

        reply = self._ask(user, row)
        text = reply["choices"][0]["message"]["content"]
        references = [row["answer"]] if isinstance(row["answer"], str) else row["answer"]
        right = score_answer(default_metric("answer").name, text, references, row["question"], "I don't know") > 0
        body = {
            "kind": "like" if right else "dislike",
            "messages": [{"role": "user", "content": row["question"]}],
            "answers": [{"receipt": reply["trimtab"]["receipts"][0], "text": text}],
            "user": user,
        }
        self.client.post("/feedback", json=body).raise_for_status()
        return int(reply["trimtab"]["release"]["version"]), right

    def _ask(self, user: str | None, row: dict[str, Any]) -> dict[str, Any]:
        body: dict[str, Any] = {"model": "production", "messages": [{"role": "user", "content": row["question"]}]}
        reply = self.client.post("/v1/chat/completions", json={**body, **({"user": user} if user else {})})
        reply.raise_for_status()
        found: dict[str, Any] = reply.json()
        return found


def _first_object(lines: IO[str] | None) -> dict[str, Any] | None:
    """Return the first JSON object that a process prints; None if it ends without one."""
    text = ""
    for line in lines or ():
        text += line
        with suppress(ValueError):
            found: dict[str, Any] = json.loads(text)
            return found
    return None


def _environment() -> dict[str, str]:
    """Return this process's environment with its import path, without colours, and with a fixed width."""
    return {**os.environ, "NO_COLOR": "1", "COLUMNS": "120", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryLine:
    """One step of the page."""

    title: str
    command: str
    output: str
    seconds: str


def render_story(title: str, headline: str, steps: Sequence[tuple[str, str, str, float]]) -> str:
    """Return the page as HTML, without scripts and requests; each step has title, command, output and seconds."""
    lines = tuple(
        StoryLine(title=name, command=command, output=output, seconds=f"{seconds:,.0f} s" if seconds >= 1 else "")
        for name, command, output, seconds in steps
    )
    return render_page(
        "story.html.j2", package="trimtab.upkeep", title=title, script="", headline=headline, steps=lines
    )
