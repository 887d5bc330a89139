"""How a model writes boxes: the form of grounded text that a recipe names. This file imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vlmdata import catalog
from vlmdata.grounding.form import Part
from vlmdata.grounding.scales import Cells, Steps
from vlmdata.grounding.write import MIN_VISIBLE, check_form, form_named
from vlmdata.step import RecipeError


@dataclass(frozen=True)
class BoxForm:
    """The form in which a model writes boxes."""

    name: str  # a form of `vlmdata/grounding/forms`
    min_visible: float = MIN_VISIBLE  # a box counts if at least this share of it is in the model's picture

    def __post_init__(self) -> None:
        check_form(self.name)
        if not 0 <= self.min_visible <= 1:
            raise ValueError(f"min_visible must be from 0 to 1, not {self.min_visible}")

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The control tokens of the form. They are tokens of the model's vocabulary. A form of ordinary text has none."""
        form = form_named(self.name)
        if not form.has_tokens:
            return ()
        scale = form.scale
        assert isinstance(scale, Cells | Steps), "a form with tokens has a finite number of them"
        count = scale.side**2 if isinstance(scale, Cells) else scale.most + 1
        numbers = len(scale.encode((0.0, 0.0, 1.0, 1.0), 1, 1))
        pieces = form.text([Part("", "a", tuple((number,) * numbers for number in range(count)))], "")
        written = "".join(piece.text for piece in pieces if piece.is_markup)
        return tuple(dict.fromkeys(found[0] for found in form.control.finditer(written)))


def box_form(entry: Any) -> BoxForm | None:
    """Return the form of a recipe's entry: a name, a mapping of one name to its parameters, or None for no form.

    Raises RecipeError for an unknown form or a wrong parameter.
    """
    if entry is None:
        return None
    if isinstance(entry, str):
        entry = {entry: {}}
    if not isinstance(entry, Mapping) or len(entry) != 1 or not isinstance(next(iter(entry)), str):
        raise RecipeError(f"grounding must be one form, such as qwen2_vl or {{kosmos2: {{min_visible: 0.2}}}}, not {entry!r}")
    ((name, parameters),) = entry.items()
    if parameters is not None and (not isinstance(parameters, Mapping) or "name" in parameters):
        raise RecipeError(f"grounding: the parameters of {name} must be a mapping of `min_visible`, not {parameters!r}")
    check_form(name)
    form: BoxForm = catalog.build(BoxForm, {"name": name, **(parameters or {})}, "grounding")
    return form
