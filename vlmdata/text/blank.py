"""Whether a text has no visible character."""

_UNSEEN = frozenset("\u180e\u200b\u200c\u200d\u200e\u200f\u2060\ufeff")  # zero-width spaces, direction and byte order marks


def is_blank(text: str) -> bool:
    """Say whether a text has no visible character: only white space, zero-width, direction and byte order marks."""
    return all(letter.isspace() or letter in _UNSEEN for letter in text)
