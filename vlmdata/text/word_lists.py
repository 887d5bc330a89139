"""Reads the word lists that a recipe names: a file, or the stop words of a language."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from vlmdata.extras import required
from vlmdata.step import RecipeError


def read_words(name: str, where: str) -> frozenset[str] | None:
    """Return the words of the file `name` in lower case, or None if `name` is empty.

    The file has one word per line, or is a JSON list of words, or is a JSON object whose keys are the words. Raises RecipeError
    if the file cannot be read or is empty. The message begins with `where`.
    """
    if not name:
        return None
    try:
        text = Path(name).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{where}: the word list {name} cannot be read: {error}") from None
    if text.lstrip()[:1] in ("[", "{"):
        try:
            words = frozenset(str(word).strip().lower() for word in json.loads(text))
        except ValueError as error:
            raise RecipeError(f"{where}: {name} is not valid JSON: {error}") from None
    else:
        words = frozenset(line.strip().lower() for line in text.splitlines())
    words -= {""}
    if not words:
        raise RecipeError(f"{where}: the word list {name} is empty")
    return words


def read_stop_words(name: str, where: str) -> frozenset[str] | None:
    """Return the stop words that `name` chooses, or None if `name` is empty.

    `name` is a language code of the library stop-words, such as `en`, or a file in the format of `read_words`.
    """
    if name.isalpha():
        library = required("stop_words", f"{where}: the word list '{name}'")
        if name in library.LANGUAGE_MAPPING:
            return frozenset(word.lower() for word in library.get_stop_words(name))
    return read_words(name, where)


def fingerprint_of(*lists: frozenset[str] | None) -> str:
    """Return 16 hex digits that identify the words of the lists. The paths of their files do not matter."""
    text = json.dumps([None if words is None else sorted(words) for words in lists])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
