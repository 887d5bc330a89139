"""Makes conversations about the places of objects from the labelled boxes of a picture."""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.draws import content, fraction, in_order
from vlmdata.generation.captions import is_pair, own_text, shortened
from vlmdata.generation.grounded_turns import with_grounded_turns
from vlmdata.generation.scene_text import LABEL_WORDS
from vlmdata.generation.template import check_characters, check_template
from vlmdata.grounding.caption_spans import named_in, spans_in
from vlmdata.grounding.frame import Frame, Shown
from vlmdata.grounding.questions import PLACES, TEMPLATES, Grounded, GroundedTurn, describe, detect, mention, refer
from vlmdata.grounding.scales import Pixels
from vlmdata.grounding.scene import Rules, Scene, absent_names, scene_of
from vlmdata.grounding.smart_resize import smart_resize
from vlmdata.grounding.spans import TASKS, Task
from vlmdata.grounding.write import FORMS, check_form, form_named, plain_text, write_text
from vlmdata.parameters import Doc
from vlmdata.readers.strings import clean
from vlmdata.row import alive, drop_rows, flatten, in_one
from vlmdata.step import RecipeError, Step
from vlmdata.text.object_names import ObjectNames, coco_names

NO_BOXES = "no_boxes"
NOTHING = "nothing_to_ask"
COCO = "coco"
FIELDS = ("boxes", "box_labels", "width", "height", "original_boxes", "view", "drop")
PHRASE_WORDS = 30  # of a label that is a phrase


@dataclass(frozen=True, kw_only=True)
class Ground(Step):
    """Make questions and answers about the places of objects from labelled boxes. The row becomes a conversation.

    `detect` asks for all objects of some names, `refer` for the place of one object, `describe` for what is at a box, and
    `mention` for a caption with the boxes of its words. No model is asked, and nothing is said that the boxes do not show: a
    name is asked for only if `names` says that all its objects have boxes, and if all of them can be seen. Conversations get
    the turns at their end.

    Texts hold boxes as fractions of the stored image, and the field `grounding` says which words stand for which boxes. The
    loader and the trainer write them in the form of a model. Rows with other than one image stay as they are. A pair without a
    turn is dropped as `no_boxes` or `nothing_to_ask`. The layout of the shards must be `documents`. Put `resize` and filters of
    texts before this step. See [grounding](grounding.md).
    """

    id: ClassVar = "vlmdata.steps.ground"
    example: ClassVar = "- ground: {names: coco}"
    reads: ClassVar = (
        *("texts", "images.boxes", "images.box_labels", "images.original_boxes", "images.view"),
        *("images.width", "images.height", "extra"),
    )
    fetched: ClassVar = ("width", "height")
    gives: ClassVar = "conversations"
    copies_texts: ClassVar = True

    names: Annotated[
        str | list[str],
        Doc(
            "Labels of which every object in a picture has a box. `coco`: COCO's 80 categories, for sources that have boxes "
            "of all of them. These names are asked for by `detect`, and looked for in captions."
        ),
    ] = field(default_factory=list)
    phrases: Annotated[
        bool,
        Doc("Whether labels that are not in `names` are phrases that describe one place, as in RefCOCO and Visual Genome."),
    ] = False
    tasks: Annotated[
        list[str],
        Doc("Which of `detect`, `refer`, `describe` and `mention` are made, in this order.", source="vlmdata's choice"),
    ] = field(default_factory=lambda: list(TASKS_MADE))
    questions: Annotated[
        dict[str, int],
        Doc("Most questions of each task about a picture.", unit="questions", source="vlmdata's choice"),
    ] = field(default_factory=lambda: {task: QUESTIONS[task] for task in TASKS_MADE})
    max_names: Annotated[
        int, Doc("Names in a question of `detect` are drawn from 1 to this number.", unit="names", source="vlmdata's choice")
    ] = 4
    max_boxes: Annotated[
        int, Doc("A name with more boxes in a picture is not used.", unit="boxes", source="vlmdata's choice")
    ] = 20
    absent: Annotated[
        float,
        Doc(
            "Share of pictures with one more question of `detect`, for a name that no box and no caption has.",
            unit="share, 0 to 1",
            source="vlmdata's choice",
        ),
    ] = 0.25
    min_visible: Annotated[
        float,
        Doc(
            "An object of which the stored image shows less is not asked about.",
            unit="share, 0 to 1",
            source="Kosmos-2's training",
        ),
    ] = 0.2
    min_area: Annotated[
        float,
        Doc("An object with a smaller box is not asked about.", unit="share of the picture, 0 to 1", source="vlmdata's choice"),
    ] = 0.001
    templates: Annotated[
        dict[str, list[str]],
        Doc(
            "Wordings of questions by task, in place of vlmdata's own. One is drawn for each question. Places: `{names}` for "
            "detect, `{phrase}` for refer, `{box}` for describe."
        ),
    ] = field(default_factory=dict)
    objects: Annotated[
        dict[str, list[str]],
        Doc("Other words in captions for names beside those of COCO's categories: `{lamp: [lantern]}`."),
    ] = field(default_factory=dict)
    seed: Annotated[int, Doc("Seed of the draws.", unit="any whole number")] = 0
    form: Annotated[
        str,
        Doc(
            "Write the texts in this form, for the stored image, and no `grounding`, for other trainers: "
            f"{', '.join(FORMS)}. Empty: the neutral form."
        ),
    ] = ""
    form_pixels: Annotated[
        list[int],
        Doc(
            "Least and most pixels of the picture of a model whose form has pixels (qwen2_5_vl), as its processor's "
            "`min_pixels` and `max_pixels`: `[3136, 12845056]`.",
            unit="pixels",
            source="none: it depends on the model",
        ),
    ] = field(default_factory=list)
    require: Annotated[bool, Doc("Whether a pair without a turn is dropped. False: it stays a caption pair.")] = True

    def check(self) -> None:
        if not self.names and not self.phrases:
            raise RecipeError(
                f"{self.name} needs names: coco, or a list of labels whose objects all have boxes. For labels that describe "
                "one place each, set phrases: true"
            )
        if isinstance(self.names, str) and self.names != COCO:
            raise RecipeError(f"{self.name}.names must be coco or a list of labels, not '{self.names}'")
        for where in ("tasks", "questions", "templates"):
            if unknown := sorted(set(getattr(self, where)) - set(TASKS)):
                raise RecipeError(f"{self.name}.{where}: there is no task '{unknown[0]}'. The tasks are {', '.join(TASKS)}")
        if not self.tasks:
            raise RecipeError(f"{self.name}.tasks needs a task: {', '.join(TASKS)}")
        for name in ("max_names", "max_boxes"):
            if not 1 <= getattr(self, name) <= 1000:
                raise RecipeError(f"{self.name}.{name} must be 1 to 1,000, not {getattr(self, name)}")
        for name in ("absent", "min_visible", "min_area"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"{self.name}.{name} must lie in [0, 1], not {getattr(self, name)}")
        if any(not 0 <= count <= 1000 for count in self.questions.values()):
            raise RecipeError(f"{self.name}.questions must have numbers from 0 to 1,000")
        self._check_templates()
        self._check_form()

    def _check_templates(self) -> None:
        for task, texts in self.templates.items():
            place = PLACES[task]  # type: ignore[index]
            for at, text in enumerate(texts, 1):
                where = f"{self.name}.templates.{task}, text {at}"
                check_template(text, [place] if place else [], where, needed=[place] if place else [])
                if place and text.count(f"{{{place}}}") > 1:
                    raise RecipeError(f"{where} has the place {{{place}}} twice")
                if not text.strip():
                    raise RecipeError(f"{where} is empty")
                check_characters({f"templates.{task}": text}, self.name)
            if not texts:
                raise RecipeError(f"{self.name}.templates.{task} needs a text")

    def _check_form(self) -> None:
        if not self.form:
            return
        check_form(self.form, f"{self.name}.form")
        in_pixels = isinstance(form_named(self.form).scale, Pixels)
        if in_pixels and not (len(self.form_pixels) == 2 and 1 <= self.form_pixels[0] <= self.form_pixels[1]):
            raise RecipeError(
                f"{self.name}.form {self.form} has pixels of the model's picture, so it needs form_pixels, the least and most "
                "pixels of its processor: [3136, 12845056]"
            )

    def check_rows(self, rows: pa.Table) -> None:
        labels = flatten(rows, "images").field("box_labels").to_pylist()
        if len(rows) and not any(label for some in labels for label in some or ()):
            raise RecipeError(
                f"{self.name} needs boxes with labels, and none of the source's first {len(rows):,} rows has one. Name their "
                "columns in the source, or use one with boxes, such as coco"
            )

    def decide(self, rows: pa.Table) -> pa.Table:
        pairs, live = is_pair(rows), alive(rows)
        images = _boxes_of(rows)
        found: list[list[GroundedTurn]] = []
        why: list[str | None] = []
        keys, texts, roles, extras = (in_one(rows[name]).to_pylist() for name in ("key", "texts", "roles", "extra"))
        for row in range(len(rows)):
            is_talk = roles[row] is not None
            one = _only([(at, image) for at, image in enumerate(images[row] or ()) if image and image["drop"] is None])
            if not live[row] or not (pairs[row] or is_talk) or one is None:
                found.append([])
                why.append(None)
                continue
            scene = self.scene(*one, _crowds(extras[row]))
            captions = [] if is_talk else _captions(own_text({"texts": texts[row]}))
            found.append([] if scene is None else list(self.turns(content(keys[row]), scene, captions)))
            why.append(None if found[-1] or is_talk else NO_BOXES if scene is None else NOTHING)
        if self.require:
            reasons = np.array(why, object)
            rows = drop_rows(rows, np.array([one is not None for one in why], bool), self.name, reason=reasons)
        return with_grounded_turns(rows, found, self.name)

    def known_names(self) -> frozenset[str]:
        """Return the labels of which every object has a box."""
        return frozenset(coco_names() if self.names == COCO else self.names)

    def scene(self, position: int, image: Mapping[str, Any], crowds: Collection[int] = ()) -> Scene | None:
        """Return what the labelled boxes of an image show. `position` is its position in the row's lists.

        `crowds` are the numbers of boxes that are known to be around a group.
        """
        rules = Rules(self.known_names(), self._words(), self.phrases, self.min_visible, self.min_area)
        words = PHRASE_WORDS if self.phrases else LABEL_WORDS
        labels = [shortened(clean(label or ""), words) or None for label in image["box_labels"] or ()]
        return scene_of(image, position, labels, rules, crowds)

    def turns(self, key: str, scene: Scene, captions: Sequence[str]) -> Iterator[GroundedTurn]:
        """Yield the turns about a picture. `key` is the content of the row's key, from which all is drawn."""
        makers = {"detect": self._detect, "refer": self._refer, "describe": self._describe, "mention": self._mention}
        for task in TASKS_MADE:
            if task in self.tasks:
                for turn in makers[task](f"{self.seed} {key} {task}", scene, captions):
                    written = self._written(turn, scene)
                    if written is not None:
                        yield written

    def _count(self, task: Task) -> int:
        return self.questions.get(task, QUESTIONS[task])

    def _template(self, task: Task, seed: str) -> str:
        listed = self.templates.get(task, TEMPLATES[task])
        return listed[int(fraction(f"{seed} wording") * len(listed))]

    def _detect(self, seed: str, scene: Scene, captions: Sequence[str]) -> Iterator[GroundedTurn]:
        names = [name for name, some in sorted(scene.complete.items()) if len(some) <= self.max_boxes]
        left = in_order(seed, names)
        for at in range(self._count("detect")):
            size = 1 + int(fraction(f"{seed} {at} size") * self.max_names)
            some, left = left[:size], left[size:]
            if some:
                yield detect(self._template("detect", f"{seed} {at}"), some, scene)
        if self._count("detect") and fraction(f"{seed} absent") < self.absent:
            others = absent_names(scene, self.known_names(), named_in(captions, self._words()))
            if others and scene.is_known:
                yield detect(self._template("detect", f"{seed} absent"), in_order(f"{seed} absent", others)[:1], scene)

    def _refer(self, seed: str, scene: Scene, captions: Sequence[str]) -> Iterator[GroundedTurn]:
        for at, thing in enumerate(in_order(seed, scene.alone)[: self._count("refer")]):
            phrase = f"the {thing.label}" if thing.label in scene.complete else thing.label
            yield refer(self._template("refer", f"{seed} {at}"), phrase, thing, scene)

    def _describe(self, seed: str, scene: Scene, captions: Sequence[str]) -> Iterator[GroundedTurn]:
        for at, thing in enumerate(in_order(seed, scene.clear)[: self._count("describe")]):
            yield describe(self._template("describe", f"{seed} {at}"), thing, scene)

    def _mention(self, seed: str, scene: Scene, captions: Sequence[str]) -> Iterator[GroundedTurn]:
        words = self._words()
        found = [(caption, spans_in(caption, scene, words)) for caption in captions]
        best = sorted((one for one in found if one[1]), key=lambda one: -len(one[1]))[: self._count("mention")]
        for at, (caption, spans) in enumerate(best):
            yield mention(self._template("mention", f"{seed} {at}"), caption, spans, scene)

    def _words(self) -> ObjectNames:
        return _object_names(self.known_names(), tuple((name, tuple(words)) for name, words in self.objects.items()))

    def _written(self, turn: GroundedTurn, scene: Scene) -> GroundedTurn | None:
        """Return a turn in the form that the recipe names, or None if it cannot be written in it."""
        if not self.form:
            return turn
        size: tuple[int, int] | None = scene.width, scene.height
        if self.form_pixels:
            size = smart_resize(scene.width, scene.height, *self.form_pixels)
        if size is None:
            return None
        shown = {scene.image: Shown(scene.places, Frame(*size))}
        texts = [write_text(one.text, one.grounding, shown, self.form) for one in (turn.question, turn.answer)]
        question, answer = (None if one is None else Grounded(plain_text(one, self.form), None) for one in texts)
        return None if question is None or answer is None else GroundedTurn(turn.task, question, answer)


TASKS_MADE: tuple[Task, ...] = ("mention", "detect", "refer", "describe")
QUESTIONS: dict[Task, int] = {"mention": 1, "detect": 1, "refer": 2, "describe": 1}


@functools.lru_cache(maxsize=8)
def _object_names(labels: frozenset[str], others: tuple[tuple[str, tuple[str, ...]], ...]) -> ObjectNames:
    return ObjectNames(dict(others)).with_labels(labels)


def _only(images: Sequence[tuple[int, Mapping[str, Any]]]) -> tuple[int, Mapping[str, Any]] | None:
    return images[0] if len(images) == 1 else None


def _captions(text: Mapping[str, Any] | None) -> list[str]:
    """Return the text of a pair and its alternatives, each once, if no step has rejected it."""
    if text is None or text["drop"] is not None:
        return []
    return list(dict.fromkeys(one for one in (text["text"], *(text["alternatives"] or ())) if one and one.strip()))


def _crowds(extra: str | None) -> frozenset[int]:
    """Return the numbers of boxes around a group, which the source `coco` keeps as `crowds` in the sample's JSON."""
    found = json.loads(extra).get("crowds") if extra and '"crowds"' in extra else None
    return frozenset(one for one in found if isinstance(one, int)) if isinstance(found, list) else frozenset()


def _boxes_of(rows: pa.Table) -> list[list[dict[str, Any] | None] | None]:
    """Return the images of each row, with only the fields that say where objects are."""
    flat = flatten(rows, "images")
    fields = [flat.field(name) for name in FIELDS]
    items = pa.StructArray.from_arrays(fields, list(FIELDS), mask=flat.items.is_null())
    return flat.rebuild(items).to_pylist()
