"""Lists of words that a recipe names: a file, or a language whose function words a library ships."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from stop_words import LANGUAGE_MAPPING, get_stop_words

from vlmdata.step import RecipeError


def read_words(name: str, where: str) -> frozenset[str] | None:
    """Return the words of a file, one a line or a JSON list (or object, whose keys count), in lower case; None for "".

    Raises RecipeError for a file that is not there or is empty.
    """
    if not name:
        return None
    try:
        text = Path(name).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{where}: cannot read the list of words {name}: {error}") from None
    if text.lstrip()[:1] in ("[", "{"):
        try:
            words = frozenset(str(word).strip().lower() for word in json.loads(text))
        except ValueError as error:
            raise RecipeError(f"{where}: {name} is no JSON: {error}") from None
    else:
        words = frozenset(line.strip().lower() for line in text.splitlines())
    words -= {""}
    if not words:
        raise RecipeError(f"{where}: the list of words {name} is empty")
    return words


def read_stop_words(name: str, where: str) -> frozenset[str] | None:
    """Return function words: of a language code (`en`; the list of the library stop-words), or of a file; None for ""."""
    if name in LANGUAGE_MAPPING:
        return frozenset(word.lower() for word in get_stop_words(name))
    return read_words(name, where)


def fingerprint_of(*lists: frozenset[str] | None) -> str:
    """Return 16 hex digits that stand for the words of lists, wherever their files lie."""
    text = json.dumps([None if words is None else sorted(words) for words in lists])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
