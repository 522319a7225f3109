"""Text that others wrote, made safe to show: a control character is drawn, never obeyed by the terminal."""

from __future__ import annotations

# C0 and DEL as the pictures that Unicode has for them (ESC is ␛), C1 (its CSI opens sequences too) as escapes; line ends and tabs stay.
_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
_SHOWN = _PICTURES | {code: f"\\x{code:02x}" for code in range(0x80, 0xA0)}


def visible(text: str) -> str:
    """`text` with every control character but line ends and tabs as one that can be seen."""
    return text if text.isprintable() else text.translate(_SHOWN)


def one_line(error: BaseException, limit: int = 200) -> str:
    """What a library's error says, on one short line; its type where it says nothing."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return visible(line if len(line) <= limit else f"{line[:limit]}…") or type(error).__name__


def printable(text: str, limit: int = 400) -> str:
    """Text from a file fit for one line of a terminal: control characters escaped, long text cut."""
    short = text if len(text) <= limit else f"{text[:limit]}…"
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in short)
