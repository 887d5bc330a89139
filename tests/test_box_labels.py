"""The label of each box stays with it: in rows, crops, samples and exports, and from dataset to dataset."""

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.exporting.made import IMAGE, caption, document, make_dataset
from tests.fixtures import fixture
from tests.real_data import real_data
from tests.rows import document as page
from tests.rows import table
from tests.sources.reading import read_all
from tests.test_schemas import check
from vlmdata import run, stream
from vlmdata.compare import diff
from vlmdata.engine.output.sample import samples
from vlmdata.engine.partitions.keys import content_keys
from vlmdata.engine.work.compile_recipe import inputs
from vlmdata.loader.stream import ReadOptions
from vlmdata.recipe import parse
from vlmdata.row import conform
from vlmdata.sources.webdataset import Webdataset

BOXES = [[0.0, 0.0, 2.0, 2.0], None, [1.0, 1.0, 8.0, 6.0]]
LABELS = ["dog", "person", None]
STORED = {"url": "u", "blob": "b", "offset": 0, "size": 1, "format": "png", "width": 8, "height": 6, "boxes": BOXES}


def facts_of(rows, layout):
    (sample,) = samples(rows, layout, 0, 1)
    return json.loads(dict(sample.members)["json"])


def pair_with(**facts):
    key, members = caption(0)
    return key, {**members, "json": json.dumps({**json.loads(members["json"]), **facts}).encode()}


def image_of(source):
    """Return the only image of the only row of a source, and the row's columns of the source."""
    (row,) = read_all(source).to_pylist()
    assert row["drop"] is None
    (image,) = filter(None, row["images"])
    return image, json.loads(row["extra"])


# -- samples


@pytest.mark.parametrize(("labels", "written"), [(LABELS, LABELS), (None, None), ([None] * 3, None), ([], None)])
def test_a_sample_has_labels_beside_its_boxes_only_if_there_are_some(labels, written):
    image = {**STORED, "box_labels": labels}
    facts = facts_of(table([{"images": [image, None], "texts": [None, {"text": "a"}]}]), "captions")
    check("sample", facts)
    assert (facts["boxes"], facts.get("box_labels")) == (BOXES, written)
    facts = facts_of(table([page("x", image)]), "documents")
    check("sample", facts)
    assert (facts["metadata"][1]["boxes"], facts["metadata"][1].get("box_labels")) == (BOXES, written)


def test_keys_and_hashes_of_inputs_do_not_depend_on_labels():
    images = [{**STORED, "box_labels": labels} for labels in (None, LABELS)]
    rows = table([{"images": [image, None], "texts": [None, {"text": "a"}]} for image in images])
    assert len(set(content_keys(rows))) == 1 and len(set(inputs(rows, ("images", "texts")).tolist())) == 1
    assert content_keys(rows)[0] == "566b7f3b3fab46e784cf26e6" and inputs(rows, ("images", "texts"))[0] == 9966077521311067501


# -- sources


def test_a_pair_and_a_document_are_read_with_their_labels(tmp_path):
    make_dataset(tmp_path / "pairs", [pair_with(boxes=BOXES, box_labels=LABELS)], layout="captions")
    made = document(0, ["x", IMAGE])
    facts = json.loads(made[1]["json"])
    facts["metadata"][1] |= {"boxes": BOXES, "box_labels": LABELS}
    made[1]["json"] = json.dumps(facts).encode()
    make_dataset(tmp_path / "documents", [made], layout="documents")
    for name in ("pairs", "documents"):
        image, extra = image_of(Webdataset(path=str(tmp_path / name)))
        assert (image["boxes"], image["box_labels"], extra.keys()) == (BOXES, LABELS, {"source_key"})


WRONG = ["dog", 5, {}, [], ["a"], ["a", "b", "c", "d"], ["a", 5, "c"], [["a"], "b", "c"], [1, 2, 3], [True, None, "c"]]


@pytest.mark.parametrize("labels", WRONG)
def test_labels_in_a_tar_that_do_not_fit_are_kept_as_a_column(tmp_path, labels):
    make_dataset(tmp_path / "out", [pair_with(boxes=BOXES, box_labels=labels)], layout="captions")
    (row,) = read_all(Webdataset(path=str(tmp_path / "out"))).to_pylist()
    assert (row["drop"], row["images"][0]["boxes"], row["images"][0]["box_labels"]) == (None, BOXES, None)
    facts = facts_of(conform(pa.Table.from_pylist([{**row, "key": "k"}])), "captions")
    assert facts.get("column_box_labels", []) == labels and "box_labels" not in facts


@pytest.mark.parametrize("labels", WRONG)
def test_labels_in_a_document_that_do_not_fit_are_kept_with_its_metadata(tmp_path, labels):
    made = document(0, ["x", IMAGE])
    facts = json.loads(made[1]["json"])
    facts["metadata"][1] |= {"boxes": BOXES, "box_labels": labels}
    made[1]["json"] = json.dumps(facts).encode()
    make_dataset(tmp_path / "out", [made], layout="documents")
    image, extra = image_of(Webdataset(path=str(tmp_path / "out")))
    assert (image["boxes"], image["box_labels"]) == (BOXES, None)
    assert extra.get("metadata", facts["metadata"]) == facts["metadata"] and ("metadata" in extra) == (labels != [])


def test_a_column_of_labels_without_boxes_is_kept(tmp_path):
    make_dataset(tmp_path / "out", [pair_with(box_labels=["a", "b"])], layout="captions")
    image, extra = image_of(Webdataset(path=str(tmp_path / "out")))
    assert (image["boxes"], image["box_labels"], extra["box_labels"]) == (None, None, ["a", "b"])


def test_a_broken_box_takes_its_label_along_and_both_are_kept_as_columns(tmp_path):
    stated = {"boxes": [["a", 0, 1, 1], [0.0, 0.0, 1.0, 1.0]], "box_labels": ["x", "y"]}
    make_dataset(tmp_path / "out", [pair_with(**stated)], layout="captions")
    image, extra = image_of(Webdataset(path=str(tmp_path / "out")))
    assert (image["boxes"], image["box_labels"]) == ([[0.0, 0.0, 1.0, 1.0]], ["y"])
    assert {name: extra[name] for name in stated} == stated


ODD = ["half \ud800", "\0\x1b[31m", "\u202eקלב", "x" * 1_000_000, "", "42", '["a"]', "a\nb"]


def test_strange_labels_are_read_and_written(tmp_path):
    boxes = [[float(number), 0.0, number + 1.0, 1.0] for number in range(len(ODD))]
    make_dataset(tmp_path / "out", [pair_with(boxes=boxes, box_labels=ODD)], layout="captions")
    (row,) = read_all(Webdataset(path=str(tmp_path / "out"))).to_pylist()
    expected = ["half ?", *ODD[1:4], None, *ODD[5:]]
    assert (row["images"][0]["box_labels"], json.loads(row["extra"]).keys()) == (expected, {"source_key"})
    facts = facts_of(conform(pa.Table.from_pylist([{**row, "key": "k"}])), "captions")
    assert (facts["boxes"], facts["box_labels"]) == (boxes, expected)


KEY = caption(0)[0]
BEFORE = {"boxes": BOXES, "categories": ["dog", "person", "cat"], "id": 7, "file_name": "7.jpg", "key": KEY}


@pytest.mark.parametrize(
    ("change", "labels"),
    [
        ({}, BEFORE["categories"]),
        ({"box_labels": LABELS}, LABELS),
        ({"categories": ["dog"]}, None),
        ({"categories": ["dog", 5, None]}, None),
        ({"key": "theirs"}, None),
        ({"file_name": None}, None),
    ],
)
def test_a_dataset_that_an_earlier_version_built_from_coco_has_labels(tmp_path, change, labels):
    facts = {name: value for name, value in {**BEFORE, **change}.items() if value is not None}
    make_dataset(tmp_path / "out", [pair_with(**facts)], layout="captions")
    image, extra = image_of(Webdataset(path=str(tmp_path / "out")))
    assert (image["boxes"], image["box_labels"]) == (BOXES, labels)
    assert extra["categories"] == facts["categories"]


# -- whole runs


def coco_of(folder, target):
    """Write the photos, captions and boxes of COCO in `folder` as a COCO-style file. Return the source and what is in each box.

    The second value maps each image id to the labels of its boxes, in order.
    """
    records = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    stated = json.loads((folder / "boxes.json").read_text())
    names = sorted({box["category"] for box in stated})
    notes = [{"image_id": r["id"], "caption": text} for r in records for text in r["captions"]]
    notes += [{"image_id": b["id"], "bbox": b["bbox"], "category_id": names.index(b["category"])} for b in stated]
    images = [{"id": r["id"], "file_name": r["image"], "coco_url": r["coco_url"]} for r in records]
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    target.write_text(json.dumps({"images": images, "annotations": notes, "categories": categories}))
    labels = {record["id"]: [box["category"] for box in stated if box["id"] == record["id"]] for record in records}
    return {"type": "coco", "path": str(target), "images": str(folder)}, labels


def build(source, steps, out):
    return run(parse({"source": source, "steps": steps, "shards": {"layout": "captions"}}), out, local=True, workers=1)


def facts_in(out, cache):
    """Return the JSON of all samples of a dataset, by the id of the image."""
    found = stream(str(out), seed=None, torch=False, reading=ReadOptions(cache=cache))
    return {facts["id"]: facts for facts in (json.loads(sample["json"]) for sample in found)}


def named(facts):
    return facts.get("boxes"), facts.get("box_labels")


CROP = {"resize": {"mode": "center_crop", "size": 64}}


def cropped(box, width, height, side):
    """Return a box in the central square of an image, scaled to `side` pixels, or None if it is outside."""
    scale, edge = side / min(width, height), float(side)
    x0, x1 = (min(max(x * scale - (width * scale - side) / 2, 0.0), edge) for x in (box[0], box[0] + box[2]))
    y0, y1 = (min(max(y * scale - (height * scale - side) / 2, 0.0), edge) for y in (box[1], box[1] + box[3]))
    return [x0, y0, x1, y1] if x1 > x0 and y1 > y0 else None


def is_near(box, other):
    """Return whether two boxes differ by less than a pixel, because sizes are rounded to whole pixels."""
    if box is None or other is None:
        one = box or other
        return one is None or min(one[2] - one[0], one[3] - one[1]) < 1
    return box == pytest.approx(other, abs=1)


@pytest.mark.whole
@pytest.mark.parametrize(("find", "count"), [(fixture, 42), (real_data, 546)])
def test_coco_labels_stay_with_their_boxes_through_crops_and_shards(tmp_path, find, count):
    folder = find("A_captioned/coco_free_licence")
    source, labels = coco_of(folder, tmp_path / "coco.json")
    made = build(source, [CROP], tmp_path / "out")
    assert made["kept"] == len(labels)
    found = facts_in(tmp_path / "out", tmp_path / "cache")
    assert {number: facts.get("box_labels", []) for number, facts in found.items()} == labels
    stated: dict[int, list] = {}
    for box in json.loads((folder / "boxes.json").read_text()):
        size = found[box["id"]]["original_width"], found[box["id"]]["original_height"]
        stated.setdefault(box["id"], []).append(cropped(box["bbox"], *size, 64))
    places = [
        (box, expected) for number in stated for box, expected in zip(found[number]["boxes"], stated[number], strict=True)
    ]
    assert len(places) == count and {None, list} == {box and type(box) for box, _ in places}
    assert [two for two in places if not is_near(*two)] == []
    for facts in found.values():
        check("sample", facts)
    # The dataset is cropped again: a box that was outside stays outside with its label.
    build({"type": "webdataset", "path": str(tmp_path / "out")}, [CROP], tmp_path / "again")
    again = facts_in(tmp_path / "again", tmp_path / "other")
    assert {number: named(facts) for number, facts in again.items()} == {
        number: named(facts) for number, facts in found.items()
    }
    assert not {name for facts in again.values() for name in facts if name.startswith("column_")}


@pytest.mark.whole
def test_faces_that_an_earlier_crop_removed_are_not_blurred(tmp_path):
    source, _ = coco_of(fixture("A_captioned/coco_free_licence"), tmp_path / "coco.json")
    build(source, [CROP], tmp_path / "out")
    before = facts_in(tmp_path / "out", tmp_path / "cache")
    assert any(None in facts.get("boxes", []) for facts in before.values())
    blurred = [{"resize": {"mode": "no", "blur_boxes": True, "format": "png"}}]
    made = build({"type": "webdataset", "path": str(tmp_path / "out")}, blurred, tmp_path / "again")
    assert made["dropped"] == []
    after = facts_in(tmp_path / "again", tmp_path / "other")
    assert {number: named(facts) for number, facts in after.items()} == {
        number: named(facts) for number, facts in before.items()
    }


@pytest.mark.whole
def test_changed_labels_are_a_change_by_the_source(tmp_path):
    source, _ = coco_of(fixture("A_captioned/coco_free_licence"), tmp_path / "coco.json")
    build(source, [CROP], tmp_path / "a")
    tree = json.loads((tmp_path / "coco.json").read_text())
    for category in tree["categories"]:
        category["name"] = category["name"].upper()
    (tmp_path / "coco.json").write_text(json.dumps(tree))
    build(source, [{"resize": {**CROP["resize"], "size": 32}}], tmp_path / "b")
    said = Counter({change.after: change.rows for change in diff(tmp_path / "a", tmp_path / "b")})
    assert all("image by resize" in what for what in said)
    assert any("box_labels by the source" in what for what in said)


@pytest.mark.whole
def test_rows_that_an_earlier_version_planned_and_measured_are_used_without_labels(tmp_path):
    """The work folder gets the Parquet files of earlier versions, whose images have no field `box_labels`."""
    source, labels = coco_of(fixture("A_captioned/coco_free_licence"), tmp_path / "coco.json")
    build(source, [CROP], tmp_path / "out")
    before = facts_in(tmp_path / "out", tmp_path / "cache")
    changed = [path for path in (tmp_path / "out/work").rglob("*.parquet") if without(path, "box_labels")]
    assert {path.parent.name for path in changed} == {"plan", "data"}
    logs = {path: path.read_bytes() for path in (tmp_path / "out/work/log").rglob("*") if path.is_file()}
    build(source, [CROP, {"text_length": {"min_words": 1, "min_chars": 1}}], tmp_path / "out")
    assert {path: path.read_bytes() for path in logs} == logs
    after = facts_in(tmp_path / "out", tmp_path / "other")
    for number, facts in after.items():
        facts.pop("scores", None)
        assert facts == {name: value for name, value in before[number].items() if name != "box_labels"}
    found = [
        (json.loads(row["extra"])["id"], row["images"][0])
        for row in read_all(Webdataset(path=str(tmp_path / "out"))).to_pylist()
    ]
    assert {number: image["box_labels"] or [] for number, image in found} == labels


@pytest.mark.whole
def test_images_that_an_earlier_version_measured_are_used_and_their_geometry_stays_unknown(tmp_path):
    source, _ = coco_of(fixture("A_captioned/coco_free_licence"), tmp_path / "coco.json")
    build(source, [CROP], tmp_path / "out")
    before = facts_in(tmp_path / "out", tmp_path / "cache")
    assert any("view" in facts for facts in before.values())
    assert all(("view" in facts) == ("original_boxes" in facts) for facts in before.values())
    new = ("original_boxes", "view", "grounding")
    changed = [path for path in (tmp_path / "out/work").rglob("*.parquet") if without(path, *new)]
    assert {path.parent.name for path in changed} == {"data"}  # the plan stores no field that is null everywhere
    logs = {path: path.read_bytes() for path in (tmp_path / "out/work/log").rglob("*") if path.is_file()}
    build(source, [CROP, {"resize": {"mode": "border", "size": 32, "label": "small"}}], tmp_path / "out")
    assert {path: path.read_bytes() for path in logs} == logs
    after = facts_in(tmp_path / "out", tmp_path / "other")
    assert after.keys() == before.keys()
    for number, facts in after.items():
        assert not set(new) & facts.keys()
        halves = [box and [edge / 2 for edge in box] for box in before[number].get("boxes", [])]
        assert facts.get("boxes", []) == halves


def without(path, *names) -> bool:
    """Rewrite a Parquet file without these fields of its images and texts. Return whether it had them."""
    found = pq.read_table(path)
    if not any(name in str(found.schema) for name in names):
        return False
    fields = [pa.field(field.name, older(field.type, names)) for field in found.schema]
    arrays = [pa.array(found[field.name].to_pylist(), field.type) for field in fields]
    pq.write_table(pa.table(arrays, pa.schema(fields, found.schema.metadata)), path)
    return True


def older(kind, names):
    if pa.types.is_list(kind):
        return pa.list_(older(kind.value_type, names))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, older(field.type, names)) for field in kind if field.name not in names])
    return kind
