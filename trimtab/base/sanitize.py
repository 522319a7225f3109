"""Sanitising of foreign text for terminals: control characters are shown, never executed."""

from __future__ import annotations

# C0 and DEL become Unicode's control pictures (ESC is ␛), C1 (whose CSI also starts sequences) escapes; line ends and
# tabs stay.
_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
_SHOWN = _PICTURES | {code: f"\\x{code:02x}" for code in range(0x80, 0xA0)}


def visible(text: str) -> str:
    """Return `text` with every control character except line ends and tabs replaced by a visible one."""
    return text if text.isprintable() else text.translate(_SHOWN)


def one_line(error: BaseException, limit: int = 200) -> str:
    """Return a library's error message as one short line; its type if the message is empty."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return visible(line if len(line) <= limit else f"{line[:limit]}…") or type(error).__name__


def printable(text: str, limit: int = 400) -> str:
    """Return text from a file as one line for a terminal: control characters escaped, long text cut."""
    short = text if len(text) <= limit else f"{text[:limit]}…"
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in short)
