"""Texts from outside, made safe for a terminal and for one line."""

__all__ = ["clean"]


def clean(text: object) -> str:
    """``text`` without anything that a terminal acts on, on one line."""
    return "".join(char if char.isprintable() else _escape(char) for char in str(text))


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
