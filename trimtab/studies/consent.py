"""What a task file asks for beyond its own folder, and whether who sits at the keyboard agreed to it.

A task file travels with data and may come from somebody else. To run a program, to send questions and a key to an address, and to
read files elsewhere it needs the consent of the user: an option of this command, or a line in his own `config.toml`.
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
_SHOWN = 3  # files behind links that are named one by one; of more the folder that holds them all


class Configuration(Settings):
    """The user's own `config.toml`.

    `allow`: addresses, `VARIABLE@ADDRESS` where a key goes along, files and folders. `allow_commands`: task files, or folders of them,
    whose programs may run.
    """

    allow: Texts = ()
    allow_commands: Texts = ()


@dataclass(frozen=True, slots=True)
class ConsentRequest:
    """One thing that a task file asks for: in words, and what is to be added to the command line to allow it."""

    words: str
    option: str


def config_file() -> Path:
    """Where the user's own configuration lies: `trimtab/config.toml` in XDG_CONFIG_HOME, else in `~/.config`."""
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "trimtab" / "config.toml"


def configuration() -> Configuration:
    """The user's own configuration, empty where there is none; raises InputError for one that cannot be used."""
    file = config_file()
    try:
        own = Configuration(**tomllib.loads(file.read_text(encoding="utf-8-sig")))
    except (FileNotFoundError, NotADirectoryError):
        return Configuration()
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, or keys that it does not have
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
    proposes: Sequence[str] = (),
    allow: Sequence[str] = (),
    allow_commands: bool = False,
    scores: bool = True,
    rewards: Sequence[str] = (),
) -> None:
    """Raise ConsentError, with everything that lacks consent and what to add for it, before any of it is touched.

    `endpoints` are the names of those that will be asked, `proposes` of those that are shown training rows. `scores` is whether the task's scorer program would run,
    `rewards` are the parts of its reward that would be asked.
    """
    own = configuration()
    allowed = (*allow, *own.allow)
    asked = [
        *(
            ()
            if allow_commands or _holds(own.allow_commands, task.file.resolve())
            else _commands(task, scores, rewards)
        ),
        *(
            request_of(task, name, rows=name in proposes)
            for name in dict.fromkeys((*endpoints, *proposes))
            if not _may_send(task.api[name], allowed)
        ),
        *_elsewhere(task, allowed),
    ]
    _refuse(task, asked)


def request_of(task: Task, name: str, *, rows: bool) -> ConsentRequest:
    """What an endpoint asks for; `rows`: it proposes instructions, and is shown training rows for that."""
    table = task.api[name]
    key, prefix = (f" with the key in {table.key_env}", f"{table.key_env}@") if table.key_env else ("", "")
    what = "questions and training rows" if rows else "questions"
    return ConsentRequest(f"to send {what} to {table.url}{key}", f"--allow {shlex.quote(prefix + table.url)}")


def require_places(task: Task, places: Sequence[tuple[str, str]]) -> None:
    """Raise ConsentError for places of versions that a task file names outside its folder and the user did not allow.

    `places`: a file, a folder or the address of a database or an object store, each with the option that names it on the command line.
    """
    allowed = configuration().allow
    folders = [str(task.folder), *(entry for entry in allowed if "://" not in entry)]
    addresses = {_without_password(entry) for entry in allowed if "://" in entry}
    asked = []
    for place, option in places:
        shown = _without_password(place) if "://" in place else place
        known = shown in addresses if "://" in place else _holds(folders, (task.folder / place).resolve())
        if not known:
            asked.append(ConsentRequest(f"to keep versions at {shown}", f"{option} {shlex.quote(shown)}"))
    _refuse(task, asked)


def _refuse(task: Task, asked: Sequence[ConsentRequest]) -> None:
    """Raise ConsentError for everything that is asked for, with what to add for it; nothing where nothing is."""
    once = list(dict.fromkeys(asked))
    if once:
        words, options = ", ".join(one.words for one in once), " ".join(dict.fromkeys(one.option for one in once))
        for_good = f"for good, name them in {config_file()}, see docs/how-to/task-file.md#consent"
        raise ConsentError(visible(f"{task.file}: asks {words}; if you want that, add: {options} ({for_good})"))


def _without_password(address: str) -> str:
    """An address without the password that it may hold."""
    try:
        parts = urlsplit(address)
    except ValueError:  # no address at all, which may hold anything
        return f"{address.partition('://')[0]}://…"
    if parts.password is None:
        return address
    return parts._replace(netloc=f"{parts.username or ''}@{parts.netloc.rpartition('@')[2]}").geturl()


def _commands(task: Task, scores: bool, rewards: Sequence[str]) -> Iterator[ConsentRequest]:
    """What would be run: programs of the task file, and code that a model writes."""
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
    """Whether `url` is the address allowed, or below it on the same server."""
    try:
        one, other = urlsplit(allowed), urlsplit(url)
        servers = [(part.scheme, part.hostname, part.port or _PORTS[part.scheme]) for part in (one, other)]
    except (ValueError, KeyError):
        return False
    if servers[0] != servers[1] or ".." in unquote(other.path).split("/"):
        return False
    return f"{other.path.rstrip('/')}/".startswith(f"{one.path.rstrip('/')}/")


def _elsewhere(task: Task, allowed: Sequence[str]) -> Iterator[ConsentRequest]:
    """Files and folders outside the task's own that its data tables lead to, by their paths or through links."""
    folders = [str(task.folder), *(entry for entry in allowed if "://" not in entry)]
    schema = (task.task.format,) if task.task.format.endswith(".json") else ()
    data = task.data
    for pattern in (*data.examples, *data.test, *data.documents, *data.preferences, *schema):
        places = [place for place in _places(task, pattern) if not _holds(folders, place)]
        if len(places) > _SHOWN:
            places = [Path(os.path.commonpath(places))]
        for place in places:
            yield ConsentRequest(f"to read {place}, outside its folder", f"--allow {shlex.quote(str(place))}")


def _places(task: Task, pattern: str) -> list[Path]:
    """Where a pattern leads, links followed: its folder where that lies outside the task's, else every file that it names."""
    try:
        start, parts = split_sheet(task.folder / pattern)[0], Path(pattern).parts
        if not os.path.lexists(start):
            start = task.folder.joinpath(*takewhile(lambda part: not set("*?[") & set(part), parts))
        if not _holds([str(task.folder)], start.resolve()):
            return [start.resolve()]
        suffixes = (*documents.SUFFIXES, *readers.SUFFIXES)
        return [split_sheet(path)[0].resolve() for path, _ in resolve_pattern(task.folder, pattern, suffixes, "data")]
    except (InputError, OSError, ValueError, RuntimeError):  # nothing there, or no path: whoever reads it says so
        return []


def _holds(folders: Sequence[str], path: Path) -> bool:
    return any(path.is_relative_to(Path(folder).expanduser().resolve()) for folder in folders)
