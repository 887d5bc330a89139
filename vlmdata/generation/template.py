"""Texts of prompts with places for values, such as `Rewrite this caption: {text}`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from vlmdata import catalog
from vlmdata.errors import RecipeError

PLACE = re.compile(r"\{([a-z_]+)\}")


def check_template(template: str, known: Collection[str], where: str) -> None:
    """Raise RecipeError, whose message begins with `where`, if a place of the template is not one of `known`."""
    for name in PLACE.findall(template):
        if name not in known:
            known_places = sorted(known)
            suggestion = catalog.suggest(name, known_places) if known_places else " This prompt has no places for values"
            raise RecipeError(f"{where}: nothing is known for the place {{{name}}}.{suggestion}")


def filled(template: str, values: Mapping[str, str]) -> str:
    """Return the template with a value for each place. A place inside of a value stays as it is, as values are data."""
    return PLACE.sub(lambda found: values.get(found[1], found[0]), template)
