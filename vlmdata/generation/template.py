"""Texts of prompts with places for values, such as `Rewrite this caption: {text}`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from vlmdata import catalog
from vlmdata.errors import RecipeError
from vlmdata.readers.strings import clean

PLACE = re.compile(r"\{([a-z_]+)\}")


def check_template(template: str, known: Collection[str], where: str, *, needed: Collection[str] = ()) -> None:
    """Raise RecipeError, whose message begins with `where`, if a place is not one of `known`, or one of `needed` is missing."""
    for name in PLACE.findall(template):
        if name not in known:
            known_places = sorted(known)
            suggestion = catalog.suggest(name, known_places) if known_places else " This prompt has no places for values"
            raise RecipeError(f"{where}: nothing is known for the place {{{name}}}.{suggestion}")
    for name in needed:
        if f"{{{name}}}" not in template:
            raise RecipeError(f"{where} needs the place {{{name}}}")


def check_characters(texts: Mapping[str, str], step: str) -> None:
    """Raise RecipeError, whose message begins with the step and the text's name, for a text that UTF-8 cannot encode."""
    for name, text in texts.items():
        if text != clean(text):
            raise RecipeError(f"{step}.{name} has a lone surrogate, which is no character. Remove it")


def filled(template: str, values: Mapping[str, str]) -> str:
    """Return the template with a value for each place. A place inside of a value stays as it is, as values are data."""
    return PLACE.sub(lambda found: values.get(found[1], found[0]), template)
