"""The forms in which lists write a box as four numbers, and a check of whether a list has the form that a recipe states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from vlmdata.readers.stated_values import Box, box

# x0, y0, x1, y1 in pixels; x0, y0, width, height in pixels (COCO); fractions of the image's sides, or thousandths of them
BoxForm = Literal["xyxy", "xywh", "xyxy_normalised", "xyxy_1000"]
FORMS: tuple[BoxForm, ...] = get_args(BoxForm)
UNITS = {"xyxy_normalised": 1.0, "xyxy_1000": 1000.0}
SLACK = 0.02  # share of a side by which a box may leave its picture: annotators and rounding do this
FEW = 0.9  # less than this share of the boxes fits: the stated form is wrong if another one fits nearly all
NEARLY_ALL = 0.98
ENOUGH = 20  # boxes from which a form is judged


class Sized(NamedTuple):
    """Four numbers as a list has them, and the size of their image in pixels, or None where that is not known."""

    numbers: Box
    width: int | None
    height: int | None


def corners_in(form: BoxForm, numbers: Sequence[float]) -> Box | None:
    """Return [x0, y0, x1, y1] in pixels for a form in pixels, or else in fractions. None if a number is not finite."""
    found = box(numbers)
    if found is None:
        return None
    if form == "xywh":
        return box([found[0], found[1], found[0] + found[2], found[1] + found[3]])
    unit = UNITS.get(form, 1.0)
    return [edge / unit for edge in found]


def is_in_pixels(form: BoxForm) -> bool:
    """Say whether a form gives pixels, and not parts of the image's sides."""
    return form not in UNITS


def wrong_form(boxes: Sequence[Sized], form: BoxForm) -> tuple[str, list[BoxForm]] | None:
    """Return what shows that boxes do not have the form `form`, with the forms that they may have, or None if they fit.

    With fewer than 20 boxes, nothing can be said. A form is wrong if more than a tenth of the boxes leave their pictures, end
    before they begin, or are smaller than a pixel. They may have another form if nearly all of them fit it.
    """
    if len(boxes) < ENOUGH:
        return None
    fit = {one: sum(_fits(sized, one) for sized in boxes) / len(boxes) for one in FORMS}
    if all(max(sized.numbers) <= 1 for sized in boxes):  # no list has only objects that are smaller than a pixel
        fit |= dict.fromkeys((one for one in FORMS if one != "xyxy_normalised"), 0.0)
    if fit[form] >= FEW:
        return None
    better = [one for one in FORMS if fit[one] >= NEARLY_ALL]
    share = f"{1 - fit[form]:.0%} of the first {len(boxes):,} boxes do not fit their images as {form}"
    return f"{share}, but {fit[better[0]]:.0%} fit as {' or as '.join(better)}" if better else share, better


def _fits(sized: Sized, form: BoxForm) -> bool:
    found = corners_in(form, sized.numbers)
    if found is None or found[2] <= found[0] or found[3] <= found[1]:
        return False
    sides = (sized.width, sized.height) if is_in_pixels(form) else (1, 1)
    ends = zip(found[:2], found[2:], sides, strict=True)
    return all(side is None or (low >= -SLACK * side and high <= side * (1 + SLACK)) for low, high, side in ends) and (
        min(found[:2]) >= 0 or None not in sides
    )
