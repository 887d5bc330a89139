"""Writes the boxes in a decoded sample's texts in the form of a family of models, for the pixels that `Decode` returns."""

from collections.abc import Mapping
from typing import Any

from vlmdata.grounding.exchanges import exchanges
from vlmdata.grounding.frame import Shown
from vlmdata.grounding.spans import read_grounding
from vlmdata.grounding.write import plain_text, write_text
from vlmdata.images.formats import IMAGE_EXTENSIONS
from vlmdata.loader.read_samples import Sample
from vlmdata.loader.stored_augment import Placed


def with_written_boxes(sample: Sample, placed: Mapping[str, Placed], form: str, min_visible: float) -> Sample:
    """Return a decoded sample with the boxes of its caption `txt`, or of `texts` in its JSON, in a form.

    `placed` has the images by the names of their members. A text that is no longer true, because its boxes
    are not in the pixels, becomes "" in `txt` and None in `texts`. In a conversation all texts of its question become None.
    """
    facts = sample.get("json")
    if not isinstance(facts, dict) or not facts.get("grounding"):
        return sample
    if isinstance(facts["grounding"], dict):
        return _with_caption(sample, facts, placed, form, min_visible)
    texts, images, groundings = (facts.get(name) for name in ("texts", "metadata", "grounding"))
    if not all(isinstance(one, list) and len(one) == len(texts or ()) for one in (texts, images, groundings)):
        return sample
    assert isinstance(texts, list) and isinstance(images, list) and isinstance(groundings, list)
    shown = {}
    for place, image in enumerate(images):
        name = image.get("file") if isinstance(image, dict) else None
        own = placed.get(name.removeprefix(f"{sample['__key__']}.")) if isinstance(name, str) else None
        if own is not None:
            shown[place] = own.shown(image.get("boxes"), min_visible)
    written = [_written(*pair, shown, form, min_visible) for pair in zip(texts, groundings, strict=True)]
    roles = facts.get("roles")
    if isinstance(roles, list) and len(roles) == len(texts):
        turns = facts.get("turns")
        of = exchanges(roles, turns if isinstance(turns, list) else None)
        lost = {of[place] for place, text in enumerate(written) if text is None and texts[place] is not None}
        written = [None if of[place] in lost else text for place, text in enumerate(written)]
    return {**sample, "json": {**facts, "texts": written}}


def _with_caption(sample: Sample, facts: dict[str, Any], placed: Mapping[str, Placed], form: str, min_visible: float) -> Sample:
    names = [name for name in placed if name.rpartition(".")[2] in IMAGE_EXTENSIONS]
    if len(names) != 1 or not isinstance(sample.get("txt"), str):
        return sample
    shown = {0: placed[names[0]].shown(facts.get("boxes"), min_visible)}
    return {**sample, "txt": _written(sample["txt"], facts["grounding"], shown, form, min_visible) or ""}


def _written(text: Any, grounding: Any, shown: Mapping[int, Shown], form: str, min_visible: float) -> Any:
    found = read_grounding(grounding, text) if isinstance(text, str) else None
    if found is None:
        return text
    pieces = write_text(text, found, shown, form, min_visible)
    return None if pieces is None else plain_text(pieces, form)
