"""Draw marks on pictures, such as a red box or an arrow, and ask what they show. The answers are the labels of boxes."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.draws import Draws
from vlmdata.errors import RecipeError
from vlmdata.generation.as_conversation import as_conversations
from vlmdata.generation.captions import is_pair, shortened
from vlmdata.generation.mark_questions import FORMS, Drawn, question_about
from vlmdata.generation.turns import Judged
from vlmdata.grounding.marked_boxes import Limits, Place, overlap, places, usable, whole_boxes
from vlmdata.grounding.place_marks import KINDS, MOST_MARKS, MarkRules, place_marks
from vlmdata.images.facts import ImageError
from vlmdata.images.redraw import Redrawn, redraw
from vlmdata.parameters import Doc
from vlmdata.readers.strings import clean, is_blank
from vlmdata.row import ROW, alive, drop_rows, flatten, in_one, with_facts
from vlmdata.step import Step, StepContext

MOST_BOXES = 500  # of an image; comparing each with each takes time that grows with the square
LABEL_WORDS = 30
BAD, CHANGED, NO_BOXES, MANY_BOXES = "bad_image", "other_size", "no_boxes", "too_many_boxes"
_PLACEHOLDER = re.compile(r"<(?:image|video|audio)>", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class VisualPrompt(Step):
    """Draw marks around or at labelled boxes, and add a question that refers to them. The row becomes a conversation.

    The idea is that of ViP-LLaVA (Cai et al. 2023, arXiv:2312.00784): a model that is trained on pictures with marks
    understands a user's red box or arrow. The picture with the marks replaces the stored one. Only rows with one image and at
    most one text are changed; conversations and documents stay as they are. The caption moves to the sample's JSON, which also
    says what was drawn. Everything is drawn at random from `seed` and the row's key.

    Put the step behind `resize`, `faces` and all filters that look at pictures, because they should see the picture without
    marks. The layout of the shards must be `documents`. See [visual prompts](visual_prompts.md).
    """

    id: ClassVar = "vlmdata.steps.visual_prompt"
    example: ClassVar = "- visual_prompt: {max_marks: 3, kinds: {box: 2, arrow: 1}}"
    reads: ClassVar = ("images", "texts")
    fetched: ClassVar = ("blob",)
    writes: ClassVar = {"images": ROW.field("images").type, "marks": pa.list_(pa.binary())}
    measured_by: ClassVar = (
        *("kinds", "max_marks", "min_area", "max_area", "min_visible", "thickness", "alpha", "quality", "seed"),
    )
    gives: ClassVar = "conversations"
    copies_texts: ClassVar = True
    marks_pictures: ClassVar = True

    kinds: Annotated[
        dict[str, float],
        Doc(
            "Weights of the kinds of marks: `box`, `ellipse`, `triangle`, `point` and `arrow`. Several marks on a picture are "
            "always boxes with numbers.",
            unit="weights, 0 or more",
            source="the kinds of ViP-LLaVA that need no mask, without its scribble",
        ),
    ] = field(default_factory=lambda: dict.fromkeys(KINDS, 1.0))
    max_marks: Annotated[
        int,
        Doc(
            "Most marks on a picture. The number is drawn from 1 to this, and several marks need as many clear boxes.",
            unit="marks, 1 to 9",
            source="vlmdata's choice",
        ),
    ] = 3
    questions: Annotated[
        dict[str, float],
        Doc(
            "Weights of the forms of questions. `name` asks what is marked. `yes_no` asks whether it is a thing, and `number` "
            "which number marks a thing; both need names of COCO's categories.",
            unit="weights, 0 or more",
            source="vlmdata's choice",
        ),
    ] = field(default_factory=lambda: {"name": 2.0, "yes_no": 1.0, "number": 1.0})
    min_area: Annotated[
        float, Doc("A smaller box is not marked.", unit="share of the picture's area, 0 to 1", source="vlmdata's choice")
    ] = 0.005
    max_area: Annotated[
        float, Doc("A larger box is not marked.", unit="share of the picture's area, 0 to 1", source="vlmdata's choice")
    ] = 0.8
    min_visible: Annotated[
        float,
        Doc(
            "A box is not marked if a crop has left less of it in the picture.",
            unit="share of the box's area, 0 to 1",
            source="vlmdata's choice",
        ),
    ] = 0.5
    thickness: Annotated[
        tuple[float, float],
        Doc(
            "Thinnest and thickest line. It is at most a twelfth of the box's shorter side, and at least 3 pixels.",
            unit="share of the picture's longer side",
            source="ViP-LLaVA draws 2 to 8 pixels on 336; vlmdata's are thinner, because they must not hide the object",
        ),
    ] = (0.006, 0.015)
    alpha: Annotated[
        tuple[float, float],
        Doc(
            "How much of the picture a mark hides. A mark that would be hard to see, or of another colour, hides all of it.",
            unit="0 to 1",
            source="vlmdata's choice; ViP-LLaVA goes down to 0.38",
        ),
    ] = (0.8, 1.0)
    quality: Annotated[int, Doc("Quality of JPEG and WebP.", unit="1 to 100", source="img2dataset")] = 95
    seed: Annotated[int, Doc("Another seed draws other marks.", unit="any whole number")] = 0
    require: Annotated[bool, Doc("Whether a caption pair that gets no mark is dropped. False: it stays as it is.")] = False

    def check(self) -> None:
        for name, known in (("kinds", KINDS), ("questions", FORMS)):
            given: dict[str, float] = getattr(self, name)
            if unknown := sorted(set(given) - set(known)):
                raise RecipeError(f"{self.name}.{name}: there is no '{unknown[0]}'. There are {', '.join(known)}")
            if any(not 0 <= one < math.inf for one in given.values()) or not sum(given.values()) > 0:
                raise RecipeError(f"{self.name}.{name} needs weights of 0 or more, and one above 0, such as {{{known[0]}: 1}}")
        if not 1 <= self.max_marks <= MOST_MARKS:
            raise RecipeError(f"{self.name}.max_marks must lie in [1, {MOST_MARKS}], not {self.max_marks}")
        for name in ("min_area", "max_area", "min_visible"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"{self.name}.{name} must lie in [0, 1], not {getattr(self, name)}")
        if self.min_area > self.max_area:
            raise RecipeError(f"{self.name}.min_area is {self.min_area}, more than max_area, {self.max_area}: no box is marked")
        for name, least, most in (("thickness", 0.001, 0.05), ("alpha", 0.3, 1.0)):
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise RecipeError(f"{self.name}.{name} must be [least, most] in [{least}, {most}], not [{low}, {high}]")
        if not 1 <= self.quality <= 100:
            raise RecipeError(f"{self.name}.quality must lie in [1, 100], not {self.quality}")

    def check_steps(self, before: Sequence[Step]) -> None:
        for step in before:
            if step.marks_pictures:
                raise RecipeError(f"{self.name}: {step.name} before it has already marked the pictures. Use one of them")

    def check_rows(self, rows: pa.Table) -> None:
        if not len(rows):
            return
        where = f"none of the source's first {len(rows):,} rows"
        pairs = is_pair(rows)
        if not pairs.any():
            raise RecipeError(f"{self.name} marks rows with one image and at most one text, and {where} is one")
        images = flatten(rows, "images")
        labels = images.field("box_labels").to_pylist()
        if not any(label for some in labels for label in some or ()):
            raise RecipeError(
                f"{self.name} needs boxes with labels, and {where} has one. Name their columns in the source, or use one with "
                "boxes, such as coco"
            )

    def measure(self, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
        images = flatten(rows, "images")
        is_alive = images.alive() & is_pair(rows)[images.parents]
        keys = in_one(rows["key"]).to_pylist()
        found: list[bytes | None] = [None] * len(images.items)
        changed: dict[int, dict[str, Any]] = {}
        for at in np.flatnonzero(is_alive).tolist():
            drawn, done = self._mark(images.items[at].as_py(), keys[images.parents[at]], context)
            found[at] = json.dumps(drawn, ensure_ascii=False).encode("utf-8", "surrogatepass")
            if done is not None:
                blob, offset = context.store_image(done.data)
                facts = {name: getattr(done, name) for name in ("format", "width", "height", "phash")}
                changed[at] = {"data": None, "blob": blob, "offset": offset, "size": len(done.data), **facts}
        return {"images": with_facts(images, changed), "marks": images.rebuild(pa.array(found, pa.binary()))}

    def _mark(self, image: Mapping[str, Any], key: str, context: StepContext) -> tuple[dict[str, Any], Redrawn | None]:
        """Return what is drawn on an image and why other boxes are not marked, and the new image if a mark was drawn."""
        boxes, labels = image["boxes"] or [], image["box_labels"] or []
        if image["blob"] is None or not boxes or len(boxes) > MOST_BOXES:
            reason = MANY_BOXES if len(boxes) > MOST_BOXES else NO_BOXES if image["blob"] is not None else BAD
            return {"refused": {reason: 1}}, None
        names = [_name(label) for label in labels] if len(labels) == len(boxes) else [None] * len(boxes)
        drawn: dict[str, Any] = {}

        def draw(pixels: np.ndarray) -> bool:
            drawn.update(self._draw(pixels, image, boxes, names, Draws(self.seed, key)))
            return bool(drawn.get("marks"))

        try:
            done = redraw(context.image_bytes(image["blob"], image["offset"], image["size"]), self.quality, draw)
        except ImageError:
            return {"refused": {BAD: 1}}, None
        return drawn, done

    def _draw(
        self,
        pixels: np.ndarray,
        image: Mapping[str, Any],
        boxes: Sequence[Sequence[float | None] | None],
        names: Sequence[str | None],
        draws: Draws,
    ) -> dict[str, Any]:
        height, width = pixels.shape[:2]
        if (image["width"] or width, image["height"] or height) != (width, height):
            return {"refused": {CHANGED: 1}}  # nobody knows in which pixels the boxes are
        found = places(boxes, names, width, height)
        wholes = whole_boxes(image["original_boxes"] or [], image["view"], width, height)
        limits = Limits(self.min_area, self.max_area, self.min_visible)
        chosen, refused = usable(found, wholes, width, height, limits)
        refused["no_area"] += len(boxes) - len(found)
        rules = MarkRules(self.kinds, self.max_marks, self.thickness, self.alpha)
        marks, others = place_marks(pixels, found, chosen, rules, draws)
        refused += others
        drawn: dict[str, Any] = {"refused": dict(sorted((+refused).items()))}
        if marks:
            apart, near = _other_names(next(one for one in found if one.number == marks[0].box), found)
            drawn |= {"marks": [one.as_json() for one in marks], "size": [width, height], "apart": apart, "near": near}
        return drawn

    def decide(self, rows: pa.Table) -> pa.Table:
        wanted = is_pair(rows) & alive(rows)
        facts = [
            _first(some) if one else None for one, some in zip(wanted, rows[self.column("marks")].to_pylist(), strict=True)
        ]
        if self.require:
            reasons = [None if one is None or one.get("marks") else _main_reason(one["refused"]) for one in facts]
            bad = np.array([reason is not None for reason in reasons], bool)
            rows = drop_rows(rows, bad, self.name, reason=np.array(reasons, object))
        keys = in_one(rows["key"]).to_pylist()
        turns = [self._turns(one, key) for one, key in zip(facts, keys, strict=True)]
        about = [{"marks": one["marks"], "refused": one["refused"]} if one and "marks" in one else {} for one in facts]
        return as_conversations(rows, turns, self.name, about)

    def _turns(self, found: Mapping[str, Any] | None, key: str) -> list[Judged]:
        if found is None or not found.get("marks"):
            return []
        width, height = found["size"]
        drawn = Drawn(found["marks"], (width, height), found["apart"], found["near"])
        form, turn = question_about(drawn, self.questions, Draws(self.seed, key))
        return [Judged(form, turn, None)]


def _name(label: str | None) -> str | None:
    """Return a label on one line, or None if it cannot be an answer: a blank one, a very long one, or a placeholder."""
    name = shortened(clean(label or ""), LABEL_WORDS + 1)
    is_long = len(name.split()) > LABEL_WORDS or len(name) >= 10 * LABEL_WORDS
    return None if is_blank(name) or is_long or _PLACEHOLDER.search(name) else name


def _other_names(marked: Place, found: Sequence[Place]) -> tuple[list[str], list[str]]:
    """Return the names of boxes that do not overlap the marked one, and those of boxes that do. No name is in both."""
    near = {one.name for one in found if one.name and overlap(one.box, marked.box) > 0}
    lower = {name.casefold() for name in near}
    apart = {one.name for one in found if one.name and one.name.casefold() not in lower}
    return sorted(apart), sorted(near)


def _first(found: Sequence[bytes | None] | None) -> dict[str, Any] | None:
    """Return what was drawn on the row's image, or None if it was not examined."""
    known = next((one for one in found or () if one is not None), None)
    return None if known is None else json.loads(known.decode("utf-8", "surrogatepass"))


def _main_reason(refused: Mapping[str, int]) -> str:
    counts = Counter(refused)
    return min(counts, key=lambda name: (-counts[name], name)) if counts else NO_BOXES
