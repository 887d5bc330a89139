"""Visual Genome as published: boxes of objects or regions, or questions and answers about each image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa

from vlmdata.parameters import Doc
from vlmdata.readers.conversation_rows import conversation
from vlmdata.readers.find_files import File, find
from vlmdata.readers.pair_rows import json_object
from vlmdata.readers.place_images import Message
from vlmdata.readers.plain_rows import Bad, bad_record, pair, tables, with_place
from vlmdata.readers.published_json import JSON_ENDINGS, check_published_json
from vlmdata.readers.source_images import image_named
from vlmdata.readers.strings import clean, is_blank, one_line_each
from vlmdata.readers.tar_samples import names_within
from vlmdata.readers.visual_genome_files import (
    Facts,
    attributes_of,
    entries,
    file_named,
    image_facts,
    image_id,
    name_of,
    place_of,
)
from vlmdata.step import Gives, RecipeError, Source

FOLDERS = ("VG_100K", "VG_100K_2")  # the folders of the two archives of images
LISTS = {"objects": "objects", "attributes": "attributes", "region_descriptions": "regions", "question_answers": "qas"}
NOTHING = Facts(None, None, None, None, None)


@dataclass(frozen=True, kw_only=True)
class VisualGenome(Source):
    """Yield one row for each image of Visual Genome, with boxes of objects or of regions, or with questions and answers.

    The label of an object is its name, and that of a region is its phrase. Rows with boxes have an empty caption. Questions
    and answers become one conversation for each image. The files are read as streams, in all published versions, also in their
    zip archives. Reasons of dropped rows: `no_boxes`, `no_questions`, `repeated_image`, `bad_record`, and those of images.
    """

    id: ClassVar = "vlmdata.sources.visual_genome"
    example: ClassVar = "source: {type: visual_genome, path: visual_genome, content: regions, images: visual_genome}"
    images_in: ClassVar = "images"

    path: Annotated[
        str | list[str], Doc("Folder of Visual Genome's JSON files, or some of these files. They may be zip archives.")
    ]
    content: Annotated[
        Literal["objects", "regions", "questions"],
        Doc("What to read: objects.json, region_descriptions.json or question_answers.json.", source="Visual Genome"),
    ] = "regions"
    attributes: Annotated[
        bool, Doc("Whether to write an object's attributes before its name: red car. attributes.json replaces objects.json.")
    ] = False
    images: Annotated[
        str, Doc("Folder of the images or of VG_100K and VG_100K_2. Empty: fetch them from the `url` in image_data.json.")
    ] = ""

    @property
    def by_address(self) -> bool:  # type: ignore[override]
        """Whether the images must be fetched from their addresses."""
        return not self.images

    @property
    def gives(self) -> Gives:  # type: ignore[override]
        """The kind of the rows: conversations for questions, or else pairs."""
        return "conversations" if self.content == "questions" else "pairs"

    def check(self) -> None:
        if self.attributes and self.content != "objects":
            raise RecipeError(f"`attributes` are those of objects. Remove it, or set `content: objects` (not {self.content})")
        for path, _ in self.files():
            check_published_json(path)
        if self.images:
            find(self.images, ("",), parameter="source.images")

    def files(self) -> list[File]:
        found = find(self.path, JSON_ENDINGS)
        main = file_named(found, self._stem())
        if main is None:
            raise RecipeError(f"source.path holds no {self._stem()}.json, which `content: {self.content}` reads. Add this file")
        about = file_named(found, "image_data")
        if about is None and not self.images:
            raise RecipeError("source.path holds no image_data.json, which has the images' addresses. Add it, or set `images`")
        return [main] if about is None else [main, about]

    def pieces(self) -> list[dict[str, Any]]:
        files = self.files()
        return [{"path": files[0].path, "name": names_within(files)[0], "about": files[1].path if files[1:] else None}]

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        return self.read_counting(piece, Counter())

    def read_counting(self, piece: dict[str, Any], others: Counter[str]) -> Iterator[pa.Table]:
        """Yield the rows of `read`, and count boxes that are left out, and images of image_data.json without an entry."""
        facts = image_facts(piece["about"]) if piece["about"] else {}
        return tables(self._rows(piece, facts, others))

    def _rows(self, piece: dict[str, Any], facts: Mapping[int, Facts], others: Counter[str]) -> Iterator[dict[str, Any]]:
        seen: set[int] = set()
        for count, entry in entries(piece["path"]):
            number = None if isinstance(entry, Bad) else image_id(entry)
            found = None if isinstance(entry, Bad) else entry.get(LISTS[self._stem()])
            if isinstance(entry, Bad):
                yield bad_record(piece["name"], entry.problem, line=entry.line, reason=entry.reason)
            elif number is None or not isinstance(found, list):
                missing = f"no list '{LISTS[self._stem()]}'" if number is not None else "no whole number as 'image_id' or 'id'"
                yield bad_record(f"{piece['name']}, record {count}", f"the record has {missing}")
            else:
                about = facts.get(number, NOTHING)
                reason = "repeated_image" if number in seen else None
                seen.add(number)
                row = self._row(number, about, found, reason, others)
                yield with_place(row, f"{piece['name']}, image {number}", f"record {count} is about image {number}")
        if without := len(facts.keys() - seen):
            others["image_without_entry"] += without

    def _row(self, number: int, about: Facts, found: Sequence[Any], reason: str | None, others: Counter[str]) -> dict[str, Any]:
        image = self._image(number, about)
        if not self.images and not image["url"]:
            reason = reason or "no_address"
        extra = {"visual_genome_id": number, "coco_id": about.coco_id, "flickr_id": about.flickr_id}
        stated = json_object({name: value for name, value in extra.items() if value is not None})
        if self.content == "questions":
            return _dialogue(image, found, stated, reason, others)
        boxes, labels = self._boxes(found, (image.get("width") or about.width, image.get("height") or about.height), others)
        image |= {"boxes": boxes or None, "box_labels": labels if any(labels) else None}
        identity = clean(json_object({"visual_genome": number, "content": self.content, "boxes": boxes, "labels": labels}))
        return pair(image, [], id=identity, extra=stated, reason=reason or (None if boxes else "no_boxes"))

    def _image(self, number: int, about: Facts) -> dict[str, Any]:
        if not self.images:
            return {"url": about.url, "original_width": about.width, "original_height": about.height}
        name = f"{number}.jpg"
        folder = (about.url or "").rsplit("/", 2)[-2:-1]
        faults: list[dict[str, Any]] = []
        for place in dict.fromkeys(one for one in (*folder, *FOLDERS, "") if one in (*FOLDERS, "")):
            image = image_named(f"{place}/{name}" if place else name, self.images)
            if not image.get("reason"):
                return {**image, "url": about.url}
            faults.append(image)
        return {**next((one for one in faults if one["reason"] != "no_file"), faults[0]), "url": about.url}

    def _boxes(
        self, found: Sequence[Any], size: tuple[int | None, int | None], others: Counter[str]
    ) -> tuple[list[list[float]], list[str | None]]:
        """Return the boxes with an area within an image of this size, and their labels. Count the others by kind.

        Edges outside of the picture stay as they are: the step `resize` clips them, and other steps get what was annotated.
        """
        boxes: list[list[float]] = []
        labels: list[str | None] = []
        for item in found:
            place = place_of(item) if isinstance(item, dict) else None
            if place is None:
                others["bad_box"] += 1
            elif place[2] <= place[0] or place[3] <= place[1]:
                others["box_without_area"] += 1
            elif place[2] <= 0 or place[3] <= 0 or any(s and low >= s for s, low in zip(size, place[:2], strict=True)):
                others["box_outside_picture"] += 1
            else:
                boxes.append(place)
                labels.append(self._label(item))
        return boxes, labels

    def _label(self, item: Mapping[str, Any]) -> str | None:
        if self.content == "regions":
            return next(iter(one_line_each([item.get("phrase")])), None)
        name = name_of(item)
        said = attributes_of(item) if self.attributes and name else []
        return f"{', '.join(said)} {name}" if said else name

    def _stem(self) -> str:
        if self.content == "objects":
            return "attributes" if self.attributes else "objects"
        return {"regions": "region_descriptions", "questions": "question_answers"}[self.content]


def _dialogue(
    image: dict[str, Any], found: Sequence[Any], extra: str, reason: str | None, others: Counter[str]
) -> dict[str, Any]:
    """Return a conversation with all questions about an image and their answers, in order. The image is before the first."""
    messages: list[Message] = []
    for item in found:
        said = [item.get(name) if isinstance(item, dict) else None for name in ("question", "answer")]
        question, answer = (clean(one).strip() if isinstance(one, str) and not is_blank(one) else None for one in said)
        if question is None or answer is None:
            others["bad_question"] += 1
            continue
        messages += [Message("user", [question] if messages else [image, question]), Message("assistant", [answer])]
    identity = json_object({"visual_genome": extra, "turns": [one.parts[-1] for one in messages]})
    row = conversation(messages or [Message("user", [image])], id=identity, extra=extra)
    reason = reason or (None if messages else "no_questions")
    return {**row, "drop": "source", "reason": reason} if reason else row
