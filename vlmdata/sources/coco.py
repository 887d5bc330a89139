"""COCO's JSON annotations: the captions of an image become alternatives of one text, and its boxes are kept."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pyarrow as pa

from vlmdata.parameters import Doc
from vlmdata.readers.coco_json import corners, entries, load, named
from vlmdata.readers.file_formats import check_json
from vlmdata.readers.find_files import File, find
from vlmdata.readers.nested import texts_in
from vlmdata.readers.pair_rows import json_object
from vlmdata.readers.plain_rows import pair, tables, with_place
from vlmdata.readers.source_images import image_named, keep_addresses, name_in_source, web_address
from vlmdata.readers.stated_values import labelled_boxes, whole_numbers
from vlmdata.readers.strings import clean
from vlmdata.step import Source

ADDRESSES = ("coco_url", "flickr_url", "url")  # fields that may hold the web address of a local image


@dataclass(frozen=True, kw_only=True)
class Coco(Source):
    """Yield one row for each image of COCO-style files, such as captions_*.json and instances_*.json.

    Several files are joined by image id. The label of a box is the name of its category. The sample's JSON keeps the licence,
    the Flickr address, as `categories` the names of the boxes' categories, and as `crowds` the numbers of boxes around a group.
    Files are read into memory. COCO's 118,000
    images with captions and boxes take about 2 GB.
    """

    id: ClassVar = "vlmdata.sources.coco"
    example: ClassVar = "source: {type: coco, path: [captions_train2017.json, instances_train2017.json], images: train2017}"
    images_in: ClassVar = "images"

    path: Annotated[str | list[str], Doc("COCO-style JSON files, or folders or globs of them, which are joined by image id.")]
    images: Annotated[str, Doc("Folder of the images. Empty: fetch them from `address`.")] = ""
    address: Annotated[str, Doc("Field with an image's address. COCO also has `flickr_url`.", source="COCO")] = "coco_url"

    @property
    def by_address(self) -> bool:  # type: ignore[override]
        """Whether the images must be fetched from their addresses."""
        return not self.images

    def check(self) -> None:
        for path, _ in self.files():
            check_json(path)
        if self.images:
            find(self.images, ("",), parameter="source.images")

    def files(self) -> list[File]:
        return find(self.path, (".json", ".json.gz"))

    def pieces(self) -> list[dict[str, Any]]:
        return [{}]

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        images: dict[Any, dict[str, Any]] = {}
        captions: dict[Any, list[str]] = defaultdict(list)
        faults: dict[Any, str] = {}
        boxes: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
        categories: dict[Any, Any] = {}
        licences: dict[Any, dict[str, Any]] = {}
        for path, _ in self.files():
            tree = load(path)
            licences.update((one["id"], one) for one in entries(path, tree, "licenses", "id"))
            categories.update((one["id"], one.get("name")) for one in entries(path, tree, "categories", "id"))
            for image in entries(path, tree, "images", "id"):
                images.setdefault(image["id"], {}).update(image)
            for note in entries(path, tree, "annotations", "image_id"):
                said, fault = texts_in(note.get("caption"))
                captions[note["image_id"]] += map(str.strip, said)
                if fault:
                    faults.setdefault(note["image_id"], fault)
                if corners(note.get("bbox")):
                    boxes[note["image_id"]].append(note)
        for by_image in (captions, boxes, faults):
            _join(by_image, images)
        orphans = {number for number, said in captions.items() if said} | boxes.keys() | faults.keys()
        known = {**images, **{number: {"id": number} for number in sorted(orphans - images.keys(), key=str)}}
        yield from tables(
            self._row(image, captions[number], faults.get(number), boxes[number], categories, licences)
            for number, image in known.items()
        )

    def _row(
        self,
        about: Mapping[str, Any],
        captions: list[str],
        fault: str | None,
        notes: list[Mapping[str, Any]],
        categories: Mapping[Any, Any],
        licences: Mapping[Any, Mapping[str, Any]],
    ) -> dict[str, Any]:
        url = about.get(self.address)
        image: dict[str, Any] = {"url": clean(url) if isinstance(url, str) else None}
        reason = fault
        if self.images:
            image = image_named(about.get("file_name"), self.images)
            keep_addresses([image], {"url": next(filter(web_address, map(about.get, (self.address, *ADDRESSES))), None)})
        elif not image["url"]:
            reason = reason or "no_address"
        elif all(sizes := whole_numbers([about.get("width"), about.get("height")]).to_pylist()):
            image |= {"original_width": sizes[0], "original_height": sizes[1]}
        names = [named(categories, note.get("category_id")) for note in notes]
        labels = [name if isinstance(name, str) else None for name in names]
        image["boxes"], image["box_labels"] = labelled_boxes([corners(note.get("bbox")) for note in notes], labels)
        licence = named(licences, about.get("license")) or {}
        extra = {
            "id": about["id"],
            "file_name": about.get("file_name"),
            "flickr_url": about.get("flickr_url"),
            "licence": licence.get("name"),
            "licence_url": licence.get("url"),
            "categories": names or None,
            "crowds": [number for number, note in enumerate(notes) if note.get("iscrowd") == 1] or None,
        }
        stated = {name: value for name, value in extra.items() if value is not None}
        identity = json_object({"id": about["id"], "captions": captions})
        row = pair(image, captions, id=clean(identity), extra=clean(json_object(stated)), reason=reason)
        return with_place(row, clean(f"image {about['id']}"), name_in_source(about.get("file_name")))


def _join(by_image: dict[Any, Any], images: Mapping[Any, Any]) -> None:
    """Change the ids in `by_image` to the form that `images` has: 7 or "7". Files write ids as numbers or as strings."""
    for number in [one for one in by_image if one not in images]:
        twin = str(number) if isinstance(number, int) else int(number) if number.isascii() and number.isdecimal() else None
        if twin in images:
            by_image[twin] = by_image[twin] + by_image.pop(number) if twin in by_image else by_image.pop(number)
