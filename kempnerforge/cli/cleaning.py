"""Makes untrusted text safe to print on one line of a terminal."""

__all__ = ["clean"]


def clean(text: object) -> str:
    """Returns ``text`` on one line, with control characters escaped."""
    return "".join(char if char.isprintable() else _escape(char) for char in str(text))


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
