"""Consent: a task file may run programs, send data or read files outside its folder only if the user allows it.

A task file travels with data and may come from somebody else. The user allows each access with an option of the
command, or with a line of the personal `config.toml`.
"""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from trimtab.base.config import ApiTable, Settings, Texts
from trimtab.base.errors import ConsentError, InputError
from trimtab.base.files import split_sheet
from trimtab.base.sanitize import visible
from trimtab.base.task import Task
from trimtab.data import documents, readers
from trimtab.data.sources import resolve_pattern

_ENDPOINT = re.compile(r"(?:(?P<key>\w+)@)?(?P<url>https?://\S+)")
_PORTS = {"http": 80, "https": 443}
_SHOWN = 3  # linked files that are listed one by one; for more, their common folder


class Configuration(Settings):
    """The user's personal `config.toml`.

    `allow`: addresses, `VARIABLE@ADDRESS` where a key goes along, files and folders. `allow_commands`: task files,
    or folders of them, whose programs may run.
    """

    allow: Texts = ()
    allow_commands: Texts = ()


@dataclass(frozen=True, slots=True)
class ConsentRequest:
    """One access that a task file requests: in words, and the command-line option that allows it."""

    words: str
    option: str


def config_file() -> Path:
    """Return the path of the personal configuration: `trimtab/config.toml` in XDG_CONFIG_HOME, else in `~/.config`."""
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "trimtab" / "config.toml"


def configuration() -> Configuration:
    """Return the personal configuration, empty without a file. Raises InputError for an invalid one."""
    file = config_file()
    try:
        own = Configuration(**tomllib.loads(file.read_text(encoding="utf-8-sig")))
    except (FileNotFoundError, NotADirectoryError):
        return Configuration()
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, or unknown keys
        found = error.errors(include_url=False)[0] if isinstance(error, ValidationError) else None
        problem = f"{'.'.join(map(str, found['loc']))}: {found['msg'].lower()}" if found else visible(str(error))
        raise InputError(problem, "it holds two lists of texts, allow and allow_commands", file=file) from None
    paths = [*(entry for entry in own.allow if "://" not in entry), *own.allow_commands]
    relative = next((path for path in paths if not Path(path).expanduser().is_absolute()), None)
    if relative is not None:
        raise InputError(f"{relative!r} is no whole path", "begin it with / or ~", file=file)
    return own


def require_consent(
    task: Task,
    endpoints: Sequence[str],
    *,
    reflector: str | None = None,
    judge: str | None = None,
    drafter: str | None = None,
    allow: Sequence[str] = (),
    allow_commands: bool = False,
    scores: bool = True,
    rewards: Sequence[str] = (),
) -> None:
    """Raise ConsentError, with everything that lacks consent and the options that allow it, before any of it is used.

    `endpoints`: the names of those that will be asked. `reflector`: the one that is shown training rows. `judge`: the
    one that judges answers. `drafter`: the one that drafts questions from passages. `scores`: True if the task's
    scorer program would run. `rewards`: the components of its reward that would be used.
    """
    own = configuration()
    allowed = (*allow, *own.allow)
    requests = [
        *(
            ()
            if allow_commands or _holds(own.allow_commands, task.file.resolve())
            else _commands(task, scores, rewards)
        ),
        *(
            request_of(task, name, rows=name == reflector, judges=name == judge, drafts=name == drafter)
            for name in dict.fromkeys((*endpoints, *(name for name in (reflector, judge, drafter) if name)))
            if not _may_send(task.api[name], allowed)
        ),
        *_outside_files(task, allowed),
        *_passage_store(task, allowed),
    ]
    _require_all_allowed(task, requests)


def request_of(task: Task, name: str, *, rows: bool, judges: bool = False, drafts: bool = False) -> ConsentRequest:
    """Return the consent request of an endpoint. `rows`: True if it rewrites instructions and is shown training
    rows. `judges`: True if it judges answers, and what passages say of their sentences if the task says so.
    `drafts`: True if it drafts questions from passages.
    """
    table = task.api[name]
    key, prefix = (f" with the key in {table.key_env}", f"{table.key_env}@") if table.key_env else ("", "")
    what = "questions and training rows" if rows else "passages of the documents" if drafts else "questions"
    if judges:
        passages = "passages, " if task.judge is not None and task.judge.groundedness else ""
        what += f", with {passages}references and answers to judge"
    return ConsentRequest(f"to send {what} to {table.url}{key}", f"--allow {shlex.quote(prefix + table.url)}")


def require_store_consent(task: Task, places: Sequence[tuple[str, str]]) -> None:
    """Raise ConsentError for stores of versions outside the task's folder that a task file names and the user did not
    allow.

    `places`: a file, a folder, or the address of a database or object store, each with its command-line option.
    """
    allowed = configuration().allow
    folders = [str(task.folder), *(entry for entry in allowed if "://" not in entry)]
    addresses = {_without_password(entry) for entry in allowed if "://" in entry}
    requests = []
    for place, option in places:
        shown = _without_password(place) if "://" in place else place
        known = shown in addresses if "://" in place else _holds(folders, (task.folder / place).resolve())
        if not known:
            requests.append(ConsentRequest(f"to keep versions at {shown}", f"{option} {shlex.quote(shown)}"))
    _require_all_allowed(task, requests)


def _require_all_allowed(task: Task, requests: Sequence[ConsentRequest]) -> None:
    """Raise ConsentError for all requests, with the options that allow them; nothing for none."""
    once = list(dict.fromkeys(requests))
    if once:
        words, options = ", ".join(one.words for one in once), " ".join(dict.fromkeys(one.option for one in once))
        for_good = f"for good, name them in {config_file()}, see docs/how-to/task-file.md#consent"
        raise ConsentError(visible(f"{task.file}: asks {words}; if you want that, add: {options} ({for_good})"))


def _without_password(address: str) -> str:
    """Return an address without its password, if it has one."""
    try:
        parts = urlsplit(address)
    except ValueError:  # no valid address, so it may contain anything
        return f"{address.partition('://')[0]}://…"
    if parts.password is None:
        return address
    return parts._replace(netloc=f"{parts.username or ''}@{parts.netloc.rpartition('@')[2]}").geturl()


def _commands(task: Task, scores: bool, rewards: Sequence[str]) -> Iterator[ConsentRequest]:
    """Yield the requests to run code: programs of the task file, and code that a model writes."""
    programs = [task.task.scorer] if scores and task.task.scorer else []
    if "program" in rewards and task.reward.program:
        programs.append(task.reward.program.argv)
    for argv in programs:
        yield ConsentRequest(f"to run the program {shlex.join(argv)!r} (read it first)", "--allow-commands")
    if "tests" in rewards:
        yield ConsentRequest("to run code that the model writes, against the tests of your rows", "--allow-commands")


def _may_send(table: ApiTable, allowed: Sequence[str]) -> bool:
    for entry in allowed:
        found = _ENDPOINT.fullmatch(entry)
        if found and _covers(found["url"], table.url) and table.key_env in (None, found["key"]):
            return True
    return False


def _covers(allowed: str, url: str) -> bool:
    """True if `url` is the allowed address, or below it on the same server."""
    try:
        one, other = urlsplit(allowed), urlsplit(url)
        servers = [(part.scheme, part.hostname, part.port or _PORTS[part.scheme]) for part in (one, other)]
    except (ValueError, KeyError):
        return False
    if servers[0] != servers[1] or ".." in unquote(other.path).split("/"):
        return False
    return f"{other.path.rstrip('/')}/".startswith(f"{one.path.rstrip('/')}/")


def _outside_files(task: Task, allowed: Sequence[str]) -> Iterator[ConsentRequest]:
    """Yield the requests for files and folders outside the task's own that its data tables lead to, by paths or
    links.
    """
    folders = [str(task.folder), *(entry for entry in allowed if "://" not in entry)]
    schema = (task.task.format,) if task.task.format.endswith(".json") else ()
    data = task.data
    for pattern in (*data.examples, *data.test, *data.documents, *data.preferences, *schema):
        places = [place for place in _places(task, pattern) if not _holds(folders, place)]
        if len(places) > _SHOWN:
            places = [Path(os.path.commonpath(places))]
        for place in places:
            yield ConsentRequest(f"to read {place}, outside its folder", f"--allow {shlex.quote(str(place))}")


def _passage_store(task: Task, allowed: Sequence[str]) -> Iterator[ConsentRequest]:
    """Yield the request for the store that the passages of the documents would be sent to."""
    store = task.retrieval.store
    if store and _without_password(store) not in {_without_password(entry) for entry in allowed if "://" in entry}:
        shown = _without_password(store)
        yield ConsentRequest(f"to keep its documents at {shown}", f"--allow {shlex.quote(shown)}")


def _places(task: Task, pattern: str) -> list[Path]:
    """Return where a pattern leads, with links resolved: its folder if outside the task's, else every file that it
    matches.
    """
    try:
        start, parts = split_sheet(task.folder / pattern)[0], Path(pattern).parts
        if not os.path.lexists(start):
            start = task.folder.joinpath(*takewhile(lambda part: not set("*?[") & set(part), parts))
        if not _holds([str(task.folder)], start.resolve()):
            return [start.resolve()]
        suffixes = (*documents.SUFFIXES, *readers.row_suffixes())
        return [split_sheet(path)[0].resolve() for path, _ in resolve_pattern(task.folder, pattern, suffixes, "data")]
    except (InputError, OSError, ValueError, RuntimeError):  # absent or no path: the reader reports it
        return []


def _holds(folders: Sequence[str], path: Path) -> bool:
    return any(path.is_relative_to(Path(folder).expanduser().resolve()) for folder in folders)
