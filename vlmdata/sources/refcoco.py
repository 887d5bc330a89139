"""RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO as published: images with boxes and the expressions that refer to them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import quote

import pyarrow as pa

from vlmdata.parameters import Doc
from vlmdata.readers.coco_json import named
from vlmdata.readers.file_formats import check_json
from vlmdata.readers.find_files import File, find
from vlmdata.readers.pair_rows import json_object
from vlmdata.readers.plain_rows import bad_record, pair, tables, with_place
from vlmdata.readers.refer_files import Instances, Ref, read_instances, read_refs
from vlmdata.readers.source_images import image_named, name_in_source
from vlmdata.readers.stated_values import Box, whole_numbers
from vlmdata.readers.strings import clean
from vlmdata.step import RecipeError, Source

MOST_BOXES = 10_000  # of an image, with all sentences; those of COCO have fewer than 100


@dataclass(frozen=True, kw_only=True)
class Refcoco(Source):
    """Yield one row for each image that a split of RefCOCO refers to. The boxes' labels are the referring expressions.

    A box has one label, so an object with three sentences gives three entries with the same box. Rows have an empty caption.
    The pickle is read by a reader that runs nothing. Both files are read into memory: 150,000 sentences take 340 MB and 14 s.
    Reasons of dropped rows: `no_boxes`, `no_image`, `bad_record`, and those of images.
    """

    id: ClassVar = "vlmdata.sources.refcoco"
    example: ClassVar = 'source: {type: refcoco, path: "refcoco/refs(unc).p", split: train, images: train2014}'
    images_in: ClassVar = "images"

    path: Annotated[str, Doc("File of refs: refs(unc).p, refs(google).p, refs(umd).p, or gRefCOCO's grefs(unc).json.")]
    instances: Annotated[str, Doc("The file instances.json in COCO's form. Empty: the one beside `path`.")] = ""
    split: Annotated[
        Literal["train", "val", "test", "testA", "testB", "testC", "all"],
        Doc("Which refs to read. RefCOCO has testA (people) and testB (other objects), RefCOCOg has test.", source="refer"),
    ] = "train"
    images: Annotated[str, Doc("Folder of COCO's train2014 or train2017. Empty: fetch the images from `address`.")] = ""
    address: Annotated[
        str, Doc("Start of the images' addresses, before the file name. The `coco_url` of the files no longer works.")
    ] = "http://images.cocodataset.org/train2014/"

    @property
    def by_address(self) -> bool:  # type: ignore[override]
        """Whether the images must be fetched from their addresses."""
        return not self.images

    def check(self) -> None:
        check_json(self.files()[1].path)
        if self.images:
            find(self.images, ("",), parameter="source.images")

    def files(self) -> list[File]:
        refs = find(self.path, (".p", ".json"))
        if len(refs) > 1:
            raise RecipeError(f"source.path holds {len(refs)} files. Name the file of refs, such as 'refs(unc).p'")
        beside = self.instances or os.path.join(os.path.dirname(refs[0].path), "instances.json")
        return [refs[0], *find(beside, (".json", ".json.gz"), parameter="source.instances")[:1]]

    def pieces(self) -> list[dict[str, Any]]:
        refs, instances = self.files()
        return [{"path": refs.path, "instances": instances.path}]

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        return self.read_counting(piece, Counter())

    def read_counting(self, piece: dict[str, Any], others: Counter[str]) -> Iterator[pa.Table]:
        """Yield the rows of `read`, and count refs of other splits, and refs without a box or a sentence."""
        return tables(self._rows(piece, others))

    def _rows(self, piece: dict[str, Any], others: Counter[str]) -> Iterator[dict[str, Any]]:
        name = os.path.basename(piece["path"])
        by_image: dict[int | str, list[Ref]] = {}
        splits: Counter[str] = Counter()
        for number, ref in read_refs(piece["path"]):
            if isinstance(ref, str):
                yield bad_record(f"{name}, ref {number}", ref)
            else:
                splits[ref.split] += 1
                if self.split in ("all", ref.split):
                    by_image.setdefault(ref.image, []).append(ref)
        if splits and not by_image:
            raise RecipeError(f"{piece['path']} has no ref in the split '{self.split}'. It has {', '.join(sorted(splits)[:9])}")
        if left := splits.total() - sum(map(len, by_image.values())):
            others["ref_of_another_split"] += left
        if not by_image:
            return
        instances = read_instances(piece["instances"])
        for image_number, refs in by_image.items():
            row = self._row(image_number, refs, instances, others)
            yield with_place(row, clean(f"{name}, image {image_number}"), name_in_source(row.pop("file_name")))

    def _row(self, number: int | str, refs: list[Ref], known: Instances, others: Counter[str]) -> dict[str, Any]:
        about = known.images.get(number) or {}
        boxes: list[Box] = []
        labels: list[str] = []
        owners: list[Any] = []
        names: list[Any] = []
        for ref in refs:
            found = [known.notes[one] for one in ref.notes if isinstance(one, int | str) and one in known.notes]
            places = [(box, category) for image, category, box in found if box is not None and image == number]
            if not places or not ref.sentences:
                others["ref_without_box" if not places else "ref_without_sentence"] += 1
            if len(boxes) + len(places) * len(ref.sentences) > MOST_BOXES:  # a product of what a file can repeat for nothing
                others["ref_beyond_most_boxes"] += 1
                continue
            for sentence in ref.sentences:
                boxes += [box for box, _ in places]
                labels += [sentence] * len(places)
                owners += [ref.number] * len(places)
                names += [named(known.categories, category) for _, category in places]
        extra = {
            "coco_id": number,
            "file_name": about.get("file_name"),
            "splits": sorted({ref.split for ref in refs}),
            "categories": names,
            "ref_ids": owners,
        }
        image = self._image(about) | {"boxes": boxes or None, "box_labels": labels or None}
        identity = clean(json_object({"image": number, "boxes": boxes, "labels": labels}))
        reason = "no_image" if not about else None if boxes else "no_boxes"
        row = pair(image, [], id=identity, extra=clean(json_object(extra)), reason=image.get("reason") or reason)
        return {**row, "file_name": about.get("file_name")}

    def _image(self, about: Mapping[str, Any]) -> dict[str, Any]:
        name = about.get("file_name")
        if not isinstance(name, str) or not name:
            return {"reason": "no_image", "drop": "source"}
        if not self.images:
            sizes = whole_numbers([about.get("width"), about.get("height")]).to_pylist()
            known = {"original_width": sizes[0], "original_height": sizes[1]} if all(sizes) else {}
            return {"url": clean(f"{self.address}{quote(clean(name))}"), **known}
        image = image_named(name, self.images)
        if image.get("reason") == "no_file" and name.startswith("COCO_"):  # train2017 has the images without this start
            image = image_named(name.rpartition("_")[2], self.images)
        return image
