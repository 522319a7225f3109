"""Sanitising of foreign text for terminals and pages: control characters are shown, never executed."""

from __future__ import annotations

# C0 and DEL become Unicode's control pictures (ESC is ␛), C1 (whose CSI also starts sequences) escapes; line ends and
# tabs stay.
_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
# Marks that change the direction in which text after them is shown, so that it reads as other text. The letters of
# languages that are written from right to left need none.
_DIRECTION_MARKS = {
    code: f"\\u{code:04x}" for code in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
_SHOWN = _PICTURES | {code: f"\\x{code:02x}" for code in range(0x80, 0xA0)} | _DIRECTION_MARKS


def visible(text: str) -> str:
    """Return `text` with control characters, but line ends and tabs, and direction marks made visible."""
    return text if text.isprintable() else text.translate(_SHOWN)


def visible_directions(text: str) -> str:
    """Return `text` with every direction mark as an escape (`\\u202e`)."""
    return text if text.isascii() else text.translate(_DIRECTION_MARKS)


def one_line(error: BaseException, limit: int = 200) -> str:
    """Return a library's error message as one short line; its type if the message is empty."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return visible(line if len(line) <= limit else f"{line[:limit]}…") or type(error).__name__


def printable(text: str, limit: int = 400) -> str:
    """Return text from a file as one line for a terminal: control characters escaped, long text cut."""
    short = text if len(text) <= limit else f"{text[:limit]}…"
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in short)
