"""Reads preference data: pairs of a better and a worse answer, or single answers with a verdict."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from trimtab.base.config import SplitTable
from trimtab.base.errors import InputError
from trimtab.base.files import sha256_text
from trimtab.base.records import Example, Message, Preference, Refusal, Split
from trimtab.base.task import Task
from trimtab.data.chat import SkipRow, read_turns
from trimtab.data.duplicates import DedupTexts, find_duplicates
from trimtab.data.ledger import LedgerRow, find_ledger_rows, read_ledger_table, update_ledger
from trimtab.data.raw_rows import RawRow
from trimtab.data.readers import read_raw_rows, row_suffixes
from trimtab.data.row_store import join_rows
from trimtab.data.rows import TEXT_CAP
from trimtab.data.sources import resolve_pattern
from trimtab.data.split import SPLITS, hash_split

CHOSEN, REJECTED = "chosen", "rejected"
_PROMPTS = ("prompt", "question", "input")
_ANSWERS, _GOOD = ("answer", "completion", "output", "response"), ("good", "label")
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")  # a conversation as one text, as in the HH data
_STRATUM = "preference"  # of preferences, in the ledger
_TRANSCRIPT_ROLES: Mapping[str, str] = {"Human": "user", "Assistant": "assistant"}
_REMEDY = 'write {"prompt": …, "chosen": …, "rejected": …}, or {"prompt": …, "answer": …, "good": true}'


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPreferences:
    """The contents of the files: usable preferences, refused rows with reasons, and a note per file."""

    preferences: tuple[Preference, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()


def read_preferences(task: Task) -> ReadPreferences:
    """Read the preferences of `task.data.preferences` in file order; without an id a row gets a hash of its content.

    Unusable rows are refused. Raises InputError for unreadable files, duplicate ids, and if no row is left.
    """
    preferences: list[Preference] = []
    refusals: list[Refusal] = []
    notes: list[str] = []
    for pattern in task.data.preferences:
        for path, _ in resolve_pattern(task.folder, pattern, row_suffixes(), "data.preferences"):
            before, refused_before = len(preferences), len(refusals)
            for row in read_raw_rows(path, task.data.encoding):
                if isinstance(row, Refusal):
                    refusals.append(row)
                    continue
                try:
                    preferences.append(read_preference(row))
                except SkipRow as skip:
                    refusals.append(row.refusal(skip.reason, skip.remedy))
            of_file = preferences[before:]
            pairs = sum(preference.is_pair for preference in of_file)
            if not of_file:
                first = refusals[refused_before] if len(refusals) > refused_before else None
                first_reason = f"; the first: {first.reason}" if first else ""
                raise InputError(f"no preference that can be used{first_reason}", _REMEDY, file=path, line=1)
            notes.append(f"{path.name}: {pairs:,} pairs of answers, {len(of_file) - pairs:,} answers judged alone")
    return ReadPreferences(preferences=tuple(_with_ids(preferences)), refusals=tuple(refusals), notes=tuple(notes))


def split_preferences(
    preferences: Sequence[Preference],
    splits: Mapping[Split, Sequence[Example]],
    split: SplitTable,
    ledger: Path,
    groups: Mapping[str, str | None] | None = None,
) -> dict[Split, tuple[Preference, ...]]:
    """Put every preference into the split of its prompt, and record that in the ledger.

    A prompt that repeats an example (exactly, normalised or nearly) or shares its group joins that example's split;
    test takes precedence over dev and train, so that no test question is trained on. Others keep their split in the
    ledger, new ones are placed by hash; preferences of one group or with duplicate prompts stay together. What was in
    test stays there. `groups`: the original group of each row by id, if several were merged in `splits`.
    """
    parts: dict[Split, list[Preference]] = {name: [] for name in SPLITS}
    if not preferences:
        return dict.fromkeys(SPLITS, ())
    table = read_ledger_table(ledger)
    known = find_ledger_rows(table, (preference.id for preference in preferences))
    questions = [preference.as_example for preference in preferences]
    rows: Sequence[Example] = ()
    for name in SPLITS:
        rows = join_rows(rows, splits[name])
    duplicates = find_duplicates(DedupTexts(join_rows(rows, questions))).components
    units = _group_units(questions, duplicates[len(rows) :].tolist())
    unit_keys = {key for _, keys in units.values() for key in keys}
    splits_of: dict[object, set[Split]] = defaultdict(set)
    names = chain.from_iterable(repeat(name, len(splits[name])) for name in SPLITS)
    for row, name, part in zip(rows, names, map(int, duplicates), strict=False):
        for key in {part, row.group, (groups or {}).get(row.id)} & unit_keys:
            splits_of[key].add(name)
    placed: dict[str, LedgerRow] = {}
    for unit, (members, keys) in units.items():
        examples = {name for key in keys for name in splits_of.get(key, ())}
        before = {known[preferences[index].id].split for index in members if preferences[index].id in known}
        possible = (examples or before) | before.intersection({"test"})  # a test prompt is never trained on later
        target = next((name for name in reversed(SPLITS) if name in possible), None) or hash_split(
            _STRATUM, unit, {"dev": split.dev, "test": split.test}, split.seed
        )
        for index in members:
            parts[target].append(preferences[index])
            ledger_row = known.get(preferences[index].id)
            if ledger_row is None or (ledger_row.stratum == _STRATUM and ledger_row.split != target):
                placed[preferences[index].id] = LedgerRow(preferences[index].id, unit, _STRATUM, target)
    if placed:
        update_ledger(ledger, table, placed.values())
    order = {preference.id: index for index, preference in enumerate(preferences)}
    return {name: tuple(sorted(part, key=lambda preference: order[preference.id])) for name, part in parts.items()}


def _group_units(questions: Sequence[Example], duplicates: Sequence[int]) -> dict[str, tuple[list[int], set[object]]]:
    """Return the units that must stay together by name: their indices, and the components and groups they share."""
    unit_of: dict[object, int] = {}
    units: dict[int, tuple[list[int], set[object]]] = {}
    for index, (row, part) in enumerate(zip(questions, duplicates, strict=True)):
        keys: set[object] = {part} | ({row.group} if row.group is not None else set())
        joined = sorted({unit_of[key] for key in keys if key in unit_of})
        members, keys_held = [index], keys
        for number in joined:
            more, others = units.pop(number)
            members, keys_held = [*more, *members], keys_held | others
        units[index] = members, keys_held
        unit_of |= dict.fromkeys(keys_held, index)
    return {min(questions[index].id for index in members): (sorted(members), keys) for members, keys in units.values()}


def is_preference(row: RawRow) -> bool:
    """True if the fields are those of a preference and of nothing else: of a pair, of an answer with `good`, or of an
    answer with a `label` that is true or false (TRL's form for KTO; any other label is a class).
    """
    names = row.fields.keys()
    if names >= {"prompt", "completion", "label"}:
        return str(row.fields["label"]).strip().lower() in ("true", "false")
    return names >= {CHOSEN, REJECTED} or names >= {"prompt", "answer", "good"}


def read_preference(row: RawRow) -> Preference:
    """Return one preference; raises SkipRow for an unusable row, InputError for a malformed conversation."""
    fields = row.fields
    chosen: str | None
    rejected: str | None
    name = next((name for name in _PROMPTS if name in fields), None)
    prompt = _read_prompt(row, name) if name else ()
    if CHOSEN in fields or REJECTED in fields:
        sides = [_conversation(row, side, prompt) for side in (CHOSEN, REJECTED)]
        if sides[0][0] != sides[1][0]:
            raise SkipRow("chosen and rejected answer different prompts", "give both the same turns before the answer")
        messages, (chosen, rejected) = sides[0][0], (answer for _, answer in sides)
        if chosen == rejected:
            raise SkipRow("chosen and rejected are the same text", "leave the row out")
    else:
        answer_key = next((key for key in _ANSWERS if key in fields), None)
        good = next((key for key in _GOOD if key in fields), None)
        if name is None or answer_key is None or good is None:
            raise row.error(f"no preference; the fields here are: {', '.join(fields)}", _REMEDY)
        messages, text = _conversation(row, answer_key, prompt)
        chosen, rejected = (text, None) if _read_bool(row, good) else (None, text)
    length = sum(len(message.content) for message in messages) + len(chosen or "") + len(rejected or "")
    if length > TEXT_CAP:
        raise SkipRow(f"{length:,} characters, and {TEXT_CAP:,} are the most that is read", "leave the row out")
    return Preference(
        id=_text(row, "id"),
        messages=messages,
        chosen=chosen,
        rejected=rejected,
        group=_text(row, "group") or None,
        weight=_weight(row),
        source=_text(row, "source") or None,
        licence=_text(row, "licence") or _text(row, "license") or None,
        file=row.file,
        line=row.line,
    )


def _read_prompt(row: RawRow, name: str) -> tuple[Message, ...]:
    """Return the turns of a prompt: a text, a transcript, or a list of turns."""
    value = row.fields[name]
    if isinstance(value, str):
        turns = _parse_transcript(value)
        if turns:
            prompt_turns = turns[:-1] if turns[-1]["role"] == "assistant" else turns
            return _read_transcript(row, name, [*prompt_turns, {"role": "assistant", "content": "-"}])[0]
        if not value.strip():
            raise SkipRow(f"no text in {name}", "fill it, or leave the row out")
        return (Message(role="user", content=value),)
    if isinstance(value, list):
        completed = RawRow(row.file, row.line, {name: [*value, {_role_key(value): "assistant", _text_key(value): "-"}]})
        return read_turns(completed, name, is_from_value=_role_key(value) == "from")[0]
    raise SkipRow(f"no text in {name}", "write text, or a list of turns")


def _conversation(row: RawRow, name: str, prompt: tuple[Message, ...]) -> tuple[tuple[Message, ...], str]:
    """Return the turns before an answer, and the answer; without `prompt` the field holds the whole conversation."""
    value = row.fields.get(name)
    if isinstance(value, str):
        turns = _parse_transcript(value)
        if turns and not prompt:
            if turns[-1]["role"] != "assistant" or len(turns) < 2:
                raise SkipRow(f"{name} does not end with an answer to a turn", "mend it, or leave the row out")
            messages, answer = _read_transcript(row, name, turns)
        else:
            messages, answer = prompt, value
    elif isinstance(value, list) and value:
        speaker = _role_key(value) == "from"
        if prompt and len(value) == 1:
            value = [_as_turn(turn, value) for turn in prompt] + value
        messages, answer = read_turns(RawRow(row.file, row.line, {name: value}), name, is_from_value=speaker)
        if prompt and messages != prompt:
            raise SkipRow(f"{name} begins with other turns than prompt", "mend it, or leave prompt out")
    else:
        raise SkipRow(f"no answer in {name}", "fill it, or leave the row out")
    if not messages:
        raise SkipRow("no prompt", "add it, or leave the row out")
    if not answer.strip():
        raise SkipRow(f"no answer in {name}", "fill it, or leave the row out")
    return messages, answer.strip()


def _parse_transcript(text: str) -> list[dict[str, str]]:
    """Return the turns of a conversation written as one text; empty if it is none."""
    pieces = _TURN.split(text)
    if len(pieces) < 3 or pieces[0].strip():
        return []
    turns = zip(pieces[1::2], pieces[2::2], strict=True)
    return [{"role": _TRANSCRIPT_ROLES[who], "content": content.strip()} for who, content in turns]


def _read_transcript(row: RawRow, name: str, turns: Sequence[dict[str, str]]) -> tuple[tuple[Message, ...], str]:
    """Return the turns of a transcript and the answer; a malformed one is skipped, as the text may hold anything."""
    for number, turn in enumerate(turns, 1):
        if not turn["content"]:
            raise SkipRow(f"turn {number} in {name} is empty", "write it, or leave the row out")
    try:
        return read_turns(RawRow(row.file, row.line, {name: list(turns)}), name, is_from_value=False)
    except InputError as error:
        raise SkipRow(f"{error.field}: {error.problem}", error.remedy) from None


def _role_key(turns: Sequence[Any]) -> str:
    return "from" if turns and isinstance(turns[0], dict) and "from" in turns[0] else "role"


def _text_key(turns: Sequence[Any]) -> str:
    return "value" if _role_key(turns) == "from" else "content"


def _as_turn(message: Message, turns_like: Sequence[Any]) -> dict[str, str]:
    speaker = _role_key(turns_like) == "from"
    role_name = {"user": "human", "assistant": "gpt"}.get(message.role, message.role) if speaker else message.role
    return {_role_key(turns_like): role_name, _text_key(turns_like): message.content}


def _read_bool(row: RawRow, name: str) -> bool:
    value = row.fields[name]
    known = {
        True: True,
        False: False,
        "true": True,
        "false": False,
        "1": True,
        "0": False,
    }  # and so the numbers 1 and 0
    normalised = value.strip().lower() if isinstance(value, str) else value
    if not isinstance(normalised, bool | int | str) or normalised not in known:
        raise SkipRow(f"{name} is neither true nor false", "write true for a good answer, false for a bad one")
    return known[normalised]


def _text(row: RawRow, name: str) -> str:
    value = row.fields.get(name)
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _weight(row: RawRow) -> float:
    value = row.fields.get("weight", 1.0)
    try:
        weight = float(value)
    except (TypeError, ValueError, OverflowError):
        raise row.error(f"the weight {str(value)[:40]!r} is not a number", "write a number", "weight") from None
    if not 0 <= weight < float("inf"):
        raise row.error(f"the weight {weight} is negative or not finite", "use 0 or more", "weight")
    return weight


def _with_ids(preferences: Sequence[Preference]) -> list[Preference]:
    """Return every preference with a unique id."""
    seen: dict[str, Preference] = {}
    with_ids: list[Preference] = []
    for preference in preferences:
        turns = (part for message in preference.messages for part in (message.role, message.content))
        base = (
            preference.id
            or f"preference-{sha256_text(*turns, preference.chosen or '', '', preference.rejected or '')[:16]}"
        )
        name = base
        while name in seen:
            if preference.id:
                other = seen[name]
                raise InputError(
                    f"the id {name[:80]!r} stands already at {other.file}:{other.line}",
                    "make ids unique",
                    file=preference.file,
                    line=preference.line,
                    field="id",
                )
            name = f"{base}-{len(with_ids) + 1}"
        seen[name] = preference
        with_ids.append(replace(preference, id=name))
    return with_ids
