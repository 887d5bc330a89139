import gzip
import json

import pytest

from tests.fixtures import fixture
from tests.real_data import real_data
from tests.sources.pictures import picture
from tests.sources.reading import read_all
from vlmdata.sources.coco import Coco
from vlmdata.step import RecipeError

CAPTIONS = {
    "images": [
        {"id": 1, "file_name": "1.png", "coco_url": "http://a.org/1.png", "width": 8, "height": 6, "license": 4},
        {"id": 2, "file_name": "lost.png"},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "caption": "one "},
        {"id": 2, "image_id": 1, "caption": "two"},
        {"id": 3, "image_id": 9, "caption": "of an image that is not listed"},
    ],
    "licenses": [{"id": 4, "name": "Attribution", "url": "http://cc.org/by"}],
}
INSTANCES = {
    "images": CAPTIONS["images"],
    "annotations": [{"id": 7, "image_id": 1, "bbox": [1.0, 2.0, 3.0, 4.0], "category_id": 5}],
    "categories": [{"id": 5, "name": "dog"}],
}


def test_captions_are_alternatives_and_boxes_have_corners(tmp_path):
    (tmp_path / "captions.json").write_text(json.dumps(CAPTIONS))
    (tmp_path / "instances.json.gz").write_bytes(gzip.compress(json.dumps(INSTANCES).encode()))
    first, second, orphan = read_all(Coco(path=str(tmp_path))).to_pylist()
    image, text = first["images"][0], first["texts"][1]
    assert (image["url"], image["boxes"], image["original_width"]) == ("http://a.org/1.png", [[1.0, 2.0, 4.0, 6.0]], 8)
    assert (text["text"], text["alternatives"]) == ("one", ["two"])
    assert json.loads(first["extra"])["licence"] == "Attribution" and json.loads(first["extra"])["categories"] == ["dog"]
    assert (image["box_labels"], second["images"][0]["box_labels"]) == (["dog"], None)
    assert (second["reason"], orphan["reason"]) == ("no_address", "no_address")


def test_boxes_around_a_group_are_named_in_the_sample_s_json(tmp_path):
    notes = [{"image_id": 1, "bbox": [1, 2, 3, 4], "category_id": 5, "iscrowd": crowd} for crowd in (0, 1, 1)]
    (tmp_path / "a.json").write_text(json.dumps({**INSTANCES, "annotations": notes}))
    first, *_ = read_all(Coco(path=str(tmp_path))).to_pylist()
    assert json.loads(first["extra"])["crowds"] == [1, 2] and len(first["images"][0]["boxes"]) == 3


def outcomes(tmp_path, images, annotations):
    """Return text, alternatives and reason of each image."""
    (tmp_path / "a.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    rows = read_all(Coco(path=str(tmp_path / "a.json"))).to_pylist()
    return [(row["texts"][1]["text"], row["texts"][1]["alternatives"], row["reason"]) for row in rows]


def test_numbers_written_as_strings_are_read_as_numbers(tmp_path):
    images = [{"id": one, "coco_url": f"http://a.org/{one}"} for one in (1, "2", 3, "3")]
    notes = [{"image_id": one, "caption": f"of {one}"} for one in ("1", 2, 3, "3", 1)]
    assert outcomes(tmp_path, images, notes) == [
        ("of 1", None, None),
        ("of 2", None, None),
        ("of 3", None, None),
        ("of 3", None, None),
    ]


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        (["a", " b "], ("a", ["b"], None)),
        ('["a", "b"]', ("a", ["b"], None)),
        (5, ("5", None, None)),
        (None, ("", None, None)),
        ({"en": "a"}, ("", None, "no_text")),
        ("half \ud800", ("half ?", None, "bad_encoding")),
    ],
)
def test_a_caption_of_another_type_is_read_or_reported(tmp_path, caption, found):
    assert outcomes(tmp_path, [{"id": 1, "coco_url": "http://a.org/1"}], [{"image_id": 1, "caption": caption}]) == [found]


def test_images_of_a_folder_are_not_copied(tmp_path):
    (tmp_path / "captions.json").write_text(json.dumps(CAPTIONS))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").write_bytes(picture())
    first, second, orphan = read_all(Coco(path=str(tmp_path / "captions.json"), images=str(tmp_path / "images"))).to_pylist()
    assert (first["images"][0]["blob"], first["images"][0]["format"]) == (str(tmp_path / "images" / "1.png"), "png")
    assert (second["reason"], orphan["reason"]) == ("no_file", "no_image")


@pytest.mark.parametrize(
    ("fields", "address"),
    [
        ({}, None),
        ({"flickr_url": "http://b.org/1"}, "http://b.org/1"),
        ({"coco_url": "1.png", "url": "HTTP://b.org/1"}, "HTTP://b.org/1"),
        ({"coco_url": "http://a.org/1", "url": "http://b.org/1"}, "http://a.org/1"),
    ],
)
def test_an_image_of_a_folder_keeps_its_address(tmp_path, fields, address):
    (tmp_path / "1.png").write_bytes(picture())
    note = {"image_id": 1, "bbox": [1, 2, 3, 4], "category_id": [5]}
    (tmp_path / "a.json").write_text(json.dumps({"images": [{"id": 1, "file_name": "1.png", **fields}], "annotations": [note]}))
    (row,) = read_all(Coco(path=str(tmp_path / "a.json"), images=str(tmp_path))).to_pylist()
    assert (row["reason"], row["images"][0]["url"], row["images"][0]["width"]) == (None, address, 8)


@pytest.mark.parametrize("name", ["../secret/s.png", "{}/secret/s.png", "link.png"])
def test_a_path_that_leaves_the_folder_is_reported(tmp_path, name):
    for folder in ("pictures", "secret"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pictures/fine.png").write_bytes(picture())
    (tmp_path / "secret/s.png").write_bytes(picture(9))
    (tmp_path / "pictures/link.png").symlink_to(tmp_path / "secret/s.png")
    images = [{"id": 1, "file_name": "fine.png"}, {"id": 2, "file_name": name.format(tmp_path)}]
    notes = [{"image_id": number, "caption": f"caption {number}"} for number in (1, 2)]
    (tmp_path / "a.json").write_text(json.dumps({"images": images, "annotations": notes}))
    rows = read_all(Coco(path=str(tmp_path / "a.json"), images=str(tmp_path / "pictures"))).to_pylist()
    assert [(row["reason"], row["images"][0]["width"]) for row in rows] == [(None, 8), ("outside_folder", None)]


def test_another_format_is_reported_before_any_work(tmp_path):
    (tmp_path / "a.json").write_bytes(b"PAR1")
    with pytest.raises(RecipeError, match=r"a\.json is parquet. This source reads json"):
        Coco(path=str(tmp_path)).check()


def test_another_json_is_refused(tmp_path):
    (tmp_path / "a.json").write_text('[{"caption": "x"}]')
    with pytest.raises(RecipeError, match="'images' and 'annotations'"):
        read_all(Coco(path=str(tmp_path)))


@pytest.mark.parametrize(("find", "count"), [(fixture, 12), (real_data, 111)])
def test_real_photos_of_coco_are_read(find, count, tmp_path):
    folder = find("A_captioned/coco_free_licence")
    records = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    images = [{"id": r["id"], "file_name": r["image"], "coco_url": r["coco_url"], "license": r["license_id"]} for r in records]
    captions = [{"image_id": r["id"], "caption": caption} for r in records for caption in r["captions"]]
    boxes = [
        {"image_id": box["id"], "bbox": box["bbox"], "category_id": 1}
        for box in json.loads((folder / "boxes.json").read_text())
    ]
    (tmp_path / "coco.json").write_text(json.dumps({"images": images, "annotations": captions + boxes, "categories": []}))
    rows = read_all(Coco(path=str(tmp_path / "coco.json"), images=str(folder))).to_pylist()
    assert (len(rows), sum(row["drop"] is None for row in rows)) == (count, count)
    assert sum(1 + len(row["texts"][1]["alternatives"]) for row in rows) == len(
        {(c["image_id"], c["caption"].strip()) for c in captions}
    )
    assert sum(len(row["images"][0]["boxes"] or []) for row in rows) == len(boxes)
    inside = [b for row in rows for b in row["images"][0]["boxes"] or [] if b[2] <= row["images"][0]["width"] + 1]
    assert len(inside) == len(boxes)


@pytest.mark.parametrize(
    ("name", "entries", "where"),
    [
        ("images", [{"id": 1}, {"coco_url": "http://a.org"}], r"images\[1\] must be an object with a number or string as 'id'"),
        ("images", ["1.png"], r"images\[0\]"),
        ("images", [{"id": [1]}], r"images\[0\]"),
        ("annotations", [{"caption": "x"}], r"annotations\[0\] must be an object with a number or string as 'image_id'"),
        ("categories", [5], r"categories\[0\]"),
        ("licenses", [{"name": "x"}], r"licenses\[0\]"),
    ],
)
def test_an_invalid_entry_is_reported_with_its_place(tmp_path, name, entries, where):
    (tmp_path / "a.json").write_text(json.dumps({"images": [], "annotations": [], name: entries}))
    with pytest.raises(RecipeError, match=f"a.json: {where}"):
        read_all(Coco(path=str(tmp_path)))


def test_boxes_and_sizes_that_are_not_numbers_are_left_out(tmp_path):
    bad = [[1, 2, 3], {"x": 1}, ["a", 1, 1, 1], [float("nan"), 1, 1, 1], [], None, [1e308, 1, 1e308, 1]]
    notes = [{"image_id": 1, "bbox": box, "category_id": 6} for box in bad]
    notes.append({"image_id": 1, "bbox": ["1", 2, 3, 4], "category_id": 5})
    images = [{"id": 1, "coco_url": "http://a.org/\ud800", "width": "8", "height": 6, "license": {}}]
    images += [{"id": 2, "coco_url": "http://b.org/", "width": 10**12, "height": 6}, {"id": 3, "coco_url": 7}]
    tree = {"images": images, "annotations": notes, "categories": [{"id": 5, "name": "dog"}, {"id": 6}]}
    (tmp_path / "a.json").write_text(json.dumps(tree))
    first, second, third = read_all(Coco(path=str(tmp_path))).to_pylist()
    image = first["images"][0]
    assert (image["url"], image["original_width"], image["boxes"]) == ("http://a.org/?", 8, [[1.0, 2.0, 4.0, 6.0]])
    assert json.loads(first["extra"])["categories"] == image["box_labels"] == ["dog"]
    assert (second["images"][0]["original_width"], second["reason"], third["reason"]) == (None, None, "no_address")


def test_the_label_of_a_box_is_the_name_of_its_category_if_that_is_a_text(tmp_path):
    names = {1: "dog", 2: 7, 3: ["a"], 4: None, 5: " ", 6: "half \ud800", 7: "x" * 1_000_000, 8: "\0\x1b[31m"}
    numbers = [*names, 99, None, {}]
    notes = [{"image_id": 1, "bbox": [number, 0, 1, 1], "category_id": one} for number, one in enumerate(numbers)]
    categories = [{"id": number, "name": name} for number, name in names.items()]
    images = [{"id": 1, "coco_url": "http://a.org/1"}]
    (tmp_path / "a.json").write_text(json.dumps({"images": images, "annotations": notes, "categories": categories}))
    (row,) = read_all(Coco(path=str(tmp_path))).to_pylist()
    image, said = row["images"][0], json.loads(row["extra"])["categories"]
    assert image["boxes"] == [[number, 0, number + 1, 1] for number in range(len(numbers))]
    assert image["box_labels"] == ["dog", None, None, None, None, "half ?", names[7], names[8], None, None, None]
    assert said == ["dog", 7, ["a"], None, " ", "half ?", names[7], names[8], None, None, None]


def test_boxes_without_categories_have_no_labels(tmp_path):
    notes = [{"image_id": 1, "bbox": [1, 2, 3, 4]}]
    (tmp_path / "a.json").write_text(json.dumps({"images": [{"id": 1, "coco_url": "http://a.org/1"}], "annotations": notes}))
    (row,) = read_all(Coco(path=str(tmp_path))).to_pylist()
    assert (row["images"][0]["boxes"], row["images"][0]["box_labels"]) == ([[1, 2, 4, 6]], None)


@pytest.mark.parametrize("text", ["", " ", "{}", "[]"])
def test_a_file_that_is_empty_adds_no_row(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    (tmp_path / "b.json").write_text('{"images": [{"id": 1, "coco_url": "http://h/1.jpg"}], "annotations": []}')
    rows = read_all(Coco(path=str(tmp_path)))
    assert [row["images"][0]["url"] for row in rows.to_pylist()] == ["http://h/1.jpg"]
