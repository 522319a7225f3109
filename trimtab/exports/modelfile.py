"""Ollama Modelfiles: converts a chat template of role turns to Go's template syntax."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trimtab.base.common_prefix import common_prefix_length
from trimtab.base.errors import InputError
from trimtab.base.records import Message
from trimtab.data.prompts import ChatEncoder

ROLES = ("system", "user", "assistant")
_CHECKED_ROLES = (
    ("user",),
    ("system", "user"),
    ("user", "assistant", "user"),
    ("system", "user", "assistant", "user", "assistant", "user"),
)
_QUOTES = '"""'


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnTemplate:
    """The text around the turns of a conversation.

    `default`: before a conversation without a system turn. `before` and `after`: around the content of each role's
    turn. `ask`: where the answer begins.
    """

    default: str
    before: Mapping[str, str]
    after: Mapping[str, str]
    ask: str

    def pieces(self, roles: Sequence[str]) -> tuple[str, ...]:
        """Return the text before, between and after the contents of turns with these roles."""
        begin = "" if "system" in roles else self.default
        ends = ["", *(self.after[role] for role in roles)]
        starts = [*(self.before[role] for role in roles), self.ask]
        first, *rest = (end + start for end, start in zip(ends, starts, strict=True))
        return (begin + first, *rest)


def turn_template_of(encoder: ChatEncoder) -> TurnTemplate:
    """Return the turn template that a chat template amounts to.

    Raises InputError if it does more: no system turn, or text that depends on the turn's number.
    """
    if not encoder.takes_system:
        problem = "the chat template has no system turn for the instruction"
        raise InputError(problem, "write the Modelfile by hand", field="base.model")
    first, to_user, to_answer, again, ask = encoder.pieces(("system", "user", "assistant", "user"), True)
    alone = encoder.pieces(("user",), True)[0]
    user = _common([text[::-1] for text in (to_user, again, alone)])[::-1]
    after = _common([to_answer, ask])
    chat = TurnTemplate(
        default=alone.removesuffix(user),
        before={"system": first, "user": user, "assistant": to_answer.removeprefix(after)},
        after={"system": to_user.removesuffix(user), "user": after, "assistant": again.removesuffix(user)},
        ask=ask.removeprefix(after),
    )
    for roles in _CHECKED_ROLES:
        if encoder.pieces(roles, True) != chat.pieces(roles):
            problem = f"the chat template says more of the turns {', '.join(roles)} than their roles tell"
            raise InputError(problem, "write the Modelfile by hand", field="base.model")
    return chat


def go_template(chat: TurnTemplate) -> str:
    """Return the template in Go's syntax, with every text as a Go string, so that no blank or brace has another
    meaning.
    """
    turns = "".join(
        f'{{{{ {"if" if place == 0 else "else if"} eq .Role "{role}" }}}}'
        f"{_text(chat.before[role])}{{{{ .Content }}}}{_text(chat.after[role])}"
        for place, role in enumerate(ROLES)
    )
    default = f"{{{{ if not .System }}}}{_text(chat.default)}{{{{ end }}}}" if chat.default else ""
    return f"{default}{{{{ range .Messages }}}}{turns}{{{{ end }}}}{{{{ end }}}}{_text(chat.ask)}"


def modelfile(
    chat: TurnTemplate,
    *,
    gguf: str,
    instruction: str,
    shots: Sequence[Message],
    stops: Sequence[str],
    most: int,
    context: int,
) -> str:
    """Return the Modelfile: greedy, the instruction as the system turn, shots as turns before the question.

    Raises InputError for text that the format cannot quote.
    """
    lines = [f"FROM ./{gguf}", f"TEMPLATE {_quoted(go_template(chat))}"]
    lines += [f"SYSTEM {_quoted(instruction)}"] if instruction else []
    lines += [f"MESSAGE {shot.role} {_quoted(shot.content)}" for shot in shots]
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops if stop]
    lines += ["PARAMETER temperature 0", "PARAMETER repeat_penalty 1"]
    lines += [f"PARAMETER num_predict {most}", f"PARAMETER num_ctx {context}"]
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""


def _quoted(text: str) -> str:
    if _QUOTES in text or text.endswith('"'):
        raise InputError("a Modelfile cannot quote text with three quotes or one at its end", "reword it", field="task")
    return f"{_QUOTES}{text}{_QUOTES}"


def _common(texts: Sequence[str]) -> str:
    """Return the common prefix of all texts."""
    least, most = min(texts), max(texts)  # a common prefix of these is common to all
    return least[: common_prefix_length(least, most)]
