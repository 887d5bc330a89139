import json
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.real_data import real_data
from tests.sources.pictures import picture
from tests.sources.reading import read_all
from vlmdata.sources.visual_genome import VisualGenome
from vlmdata.step import RecipeError

URL = "https://cs.stanford.edu/people/rak248/VG_100K_2/1.jpg"
IMAGES = [
    {"width": 80, "url": URL, "height": 60, "image_id": 1, "coco_id": None, "flickr_id": None},
    {"width": 80, "url": URL.replace("1.jpg", "2.jpg"), "height": 60, "image_id": 2, "coco_id": 77, "flickr_id": 5},
]
OBJECT = {"synsets": ["car.n.01"], "h": 30, "object_id": 9, "merged_object_ids": [], "names": ["car"], "w": 20, "y": 10, "x": 5}
REGION = {"region_id": 1382, "width": 8, "height": 13, "image_id": 1, "phrase": "the clock is green", "y": 5, "x": 4}
QUESTION = {
    "a_objects": [],
    "question": "What color is the clock?",
    "image_id": 1,
    "qa_id": 7,
    "answer": "Green.",
    "q_objects": [],
}


def write(folder: Path, **files: Any) -> str:
    """Write Visual Genome's JSON files, with image_data.json, and return the folder."""
    for name, value in {"image_data": IMAGES, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return str(folder)


def boxes_of(row: dict[str, Any]) -> list[tuple[Any, Any]]:
    image = row["images"][0]
    return list(zip(image["boxes"] or [], image["box_labels"] or [None] * 99, strict=False))


def test_regions_become_boxes_with_phrases(tmp_path: Path) -> None:
    path = write(tmp_path, region_descriptions=[{"id": 1, "regions": [REGION, {**REGION, "phrase": " a  man\n"}]}])
    (row,) = read_all(VisualGenome(path=path)).to_pylist()
    assert boxes_of(row) == [([4, 5, 12, 18], "the clock is green"), ([4, 5, 12, 18], "a man")]
    assert (row["drop"], row["texts"][1]["text"], row["images"][0]["url"]) == (None, "", URL)
    assert (row["images"][0]["original_width"], json.loads(row["extra"])) == (80, {"visual_genome_id": 1})


@pytest.mark.parametrize(
    "item",
    [
        OBJECT,
        {"id": 9, "x": 5, "y": 10, "w": 20, "h": 30, "name": "car", "image": 1},
        {"object_id": 9, "x": 5, "y": 10, "width": 20, "height": 30, "object_names": ["car", "auto"]},
        {"object_id": 9, "x": "5", "y": 10.0, "w": 20, "h": 30, "names": ["", "car"]},
    ],
)
def test_objects_of_every_version_are_read(tmp_path: Path, item: dict[str, Any]) -> None:
    (row,) = read_all(
        VisualGenome(path=write(tmp_path, objects=[{"image_id": 2, "objects": [item]}]), content="objects")
    ).to_pylist()
    assert boxes_of(row) == [([5, 10, 25, 40], "car")]
    assert json.loads(row["extra"]) == {"visual_genome_id": 2, "coco_id": 77, "flickr_id": 5}


def test_attributes_stand_before_the_name_of_an_object(tmp_path: Path) -> None:
    said = [["red", "Red", " parked "], [], None, "red", [3, "red"]]
    entry = {"image_id": 1, "attributes": [{**OBJECT, "attributes": one} for one in said]}
    (row,) = read_all(VisualGenome(path=write(tmp_path, attributes=[entry]), content="objects", attributes=True)).to_pylist()
    assert [label for _, label in boxes_of(row)] == ["red, parked car", "car", "car", "car", "red car"]


def test_questions_become_one_conversation_about_the_image(tmp_path: Path) -> None:
    bad = [{**QUESTION, "answer": None}, "x", {**QUESTION, "question": " "}]
    entry = {"id": 1, "qas": [*bad, QUESTION, {**QUESTION, "question": "Who?", "answer": "A man."}]}
    source = VisualGenome(path=write(tmp_path, question_answers=[entry, {"id": 2, "qas": []}]), content="questions")
    others: Counter[str] = Counter()
    first, second = [row for table in source.read_counting(source.pieces()[0], others) for row in table.to_pylist()]
    assert [text and text["text"] for text in first["texts"]] == [None, "What color is the clock?", "Green.", "Who?", "A man."]
    assert first["roles"] == ["user", "user", "assistant", "user", "assistant"]
    assert (first["images"][0]["url"], second["reason"], others, source.gives) == (
        URL,
        "no_questions",
        {"bad_question": 3},
        "conversations",
    )


def test_boxes_that_cannot_be_used_are_counted_by_reason(tmp_path: Path) -> None:
    outside = [{**REGION, "x": 80}, {**REGION, "y": 60}, {**REGION, "x": -9, "width": 9}]
    empty = [{**REGION, "width": 0}, {**REGION, "height": -3}]
    bad = [{**REGION, "x": None}, {**REGION, "x": float("nan")}, {**REGION, "y": 10**400}, [], None, {}]
    kept = [{**REGION, "x": -2}, {**REGION, "width": 5000}]
    path = write(
        tmp_path, region_descriptions=[{"id": 1, "regions": [*outside, *empty, *bad, *kept]}, {"id": 2, "regions": []}]
    )
    source, others = VisualGenome(path=path), Counter[str]()
    first, second = [row for table in source.read_counting(source.pieces()[0], others) for row in table.to_pylist()]
    assert others == {"box_outside_picture": 3, "box_without_area": 2, "bad_box": 6}
    assert first["images"][0]["boxes"] == [[-2, 5, 6, 18], [4, 5, 5004, 18]]
    assert (second["reason"], second["images"][0]["url"]) == ("no_boxes", IMAGES[1]["url"])


def test_records_are_joined_by_id_in_any_order_and_repeats_are_dropped(tmp_path: Path) -> None:
    records = [{"id": 2, "regions": [REGION]}, {"id": "1", "regions": [REGION]}, {"id": 2, "regions": [REGION]}]
    records += [{"id": 3, "regions": [REGION]}]
    rows = read_all(VisualGenome(path=write(tmp_path, region_descriptions=records))).to_pylist()
    found = [(row["images"][0]["url"], row["reason"]) for row in rows]
    two = IMAGES[1]["url"]
    assert found == [(two, None), (URL, None), (two, "repeated_image"), (None, "no_address")]
    assert (rows[2]["place"], rows[2]["problem"]) == ("region_descriptions.json, image 2", "record 3 is about image 2")


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ([], "not an object"),
        ("x", "not an object"),
        ({"regions": []}, "no whole number as 'image_id' or 'id'"),
        ({"id": -1, "regions": []}, "no whole number"),
        ({"id": 10**30, "regions": []}, "no whole number"),
        ({"id": "../1", "regions": []}, "no whole number"),
        ({"id": True, "regions": []}, "no whole number"),
        ({"id": 1}, "no list 'regions'"),
        ({"id": 1, "regions": {"x": 1}}, "no list 'regions'"),
    ],
)
def test_a_record_of_another_form_is_a_dropped_row(tmp_path: Path, record: Any, problem: str) -> None:
    path = write(tmp_path, region_descriptions=[record, {"id": 1, "regions": [REGION]}])
    bad, good = read_all(VisualGenome(path=path)).to_pylist()
    assert (bad["reason"], good["reason"]) == ("bad_record", None)
    assert problem in bad["problem"] and "region_descriptions.json" in bad["place"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[{"id": 1, "regions": []}', "no ']' after its 1 record"),
        ('[{"id": 1, "regions": [', "record 1 is not valid JSON"),
        ('[{"id": 1, "regions": []}] []', "more text follows"),
        ("5", "must hold an array"),
        ("PAR1", "is parquet"),
        ("[" * 200_000, "record 1 is not valid JSON"),
    ],
)
def test_a_file_that_is_cut_or_no_array_is_a_clear_error(tmp_path: Path, text: str, problem: str) -> None:
    path = write(tmp_path)
    (tmp_path / "region_descriptions.json").write_text(text)
    with pytest.raises(RecipeError, match=r"region_descriptions\.json") as error:
        read_all(VisualGenome(path=path))
    assert problem in str(error.value)


def test_the_published_zip_archives_are_read(tmp_path: Path) -> None:
    for name, value in {"image_data": IMAGES, "objects": [{"image_id": 1, "objects": [OBJECT]}]}.items():
        with zipfile.ZipFile(
            tmp_path / f"{name}{'_v1_4' * (name == 'objects')}.json.zip", "w", zipfile.ZIP_DEFLATED
        ) as archive:
            archive.writestr(f"{name}.json", json.dumps(value))
            archive.writestr(f"__MACOSX/._{name}.json", "x")
    (row,) = read_all(VisualGenome(path=str(tmp_path), content="objects")).to_pylist()
    assert boxes_of(row) == [([5, 10, 25, 40], "car")]


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({}, "must hold one .json file, and holds 0"),
        ({"a.json": "[]", "b.json": "[]"}, "holds 2"),
        ({"a.json": " " * (4 << 20)}, "is compressed more than 1,100 to 1"),
        (None, "cannot be read"),
    ],
)
def test_an_archive_without_one_json_file_is_a_clear_error(
    tmp_path: Path, members: dict[str, str] | None, problem: str
) -> None:
    write(tmp_path)
    path = tmp_path / "objects.json.zip"
    if members is None:
        path.write_bytes(b"PK\x03\x04 and no more")
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
            for name, text in members.items():
                archive.writestr(name, text)
    with pytest.raises(RecipeError, match=r"objects\.json\.zip") as error:
        read_all(VisualGenome(path=str(tmp_path), content="objects"))
    assert problem in str(error.value)


def test_images_are_found_in_the_published_folders(tmp_path: Path) -> None:
    (tmp_path / "VG_100K").mkdir()
    (tmp_path / "VG_100K_2").mkdir()
    for name, width in {"VG_100K/2.jpg": 20, "VG_100K_2/1.jpg": 21, "VG_100K/1.jpg": 22, "3.jpg": 23}.items():
        (tmp_path / name).write_bytes(picture(width, 30, "JPEG"))
    records = [{"id": number, "regions": [REGION]} for number in (1, 2, 3, 4)]
    path = write(tmp_path, region_descriptions=records, image_data=[{**IMAGES[0], "url": URL}])
    rows = read_all(VisualGenome(path=path, images=str(tmp_path))).to_pylist()
    assert [(row["images"][0]["width"], row["reason"]) for row in rows] == [
        (21, None),
        (20, None),
        (23, None),
        (None, "no_file"),
    ]
    assert rows[0]["images"][0]["url"] == URL


def test_an_address_that_names_a_folder_outside_opens_no_file_there(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "1.jpg").write_bytes(picture(9))
    for url in ("https://h/../secret/1.jpg", f"https://h/{tmp_path}/secret/1.jpg", "https://h/../1.jpg"):
        path = write(tmp_path, region_descriptions=[{"id": 1, "regions": [REGION]}], image_data=[{"image_id": 1, "url": url}])
        (tmp_path / "images" / "2.jpg").write_bytes(picture())
        (row,) = read_all(VisualGenome(path=path, images=str(tmp_path / "images"))).to_pylist()
        assert (row["reason"], row["images"][0]["blob"]) == ("no_file", None)


def test_image_data_with_wrong_values_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    facts = [5, {"image_id": "x"}, {"image_id": 1, "url": "file:///etc/passwd", "width": "NaN", "height": -2, "coco_id": 1e300}]
    facts += [
        {"id": 2, "url": URL, "width": "80", "height": 10**12, "coco_id": "77"},
        {"id": 2, "url": "http://other/"},
        {"id": 3},
    ]
    records = [{"id": number, "regions": [REGION]} for number in (1, 2)]
    source = VisualGenome(path=write(tmp_path, region_descriptions=records, image_data=facts))
    others: Counter[str] = Counter()
    first, second = [row for table in source.read_counting(source.pieces()[0], others) for row in table.to_pylist()]
    assert (first["reason"], first["images"][0]["url"]) == ("no_address", None)
    assert (second["images"][0]["url"], json.loads(second["extra"])["coco_id"]) == (URL, 77)
    assert others == {"image_without_entry": 1}


@pytest.mark.parametrize(
    ("files", "settings", "problem"),
    [
        ({"objects": []}, {}, r"no region_descriptions\.json"),
        ({"objects": [], "objects_v1_4": []}, {"content": "objects"}, "holds objects.json and objects_v1_4.json"),
        ({"region_descriptions": []}, {"attributes": True}, "`attributes` are those of objects"),
        ({"region_descriptions": []}, {"images": "absent"}, "no such file or folder"),
    ],
)
def test_a_wrong_setting_is_reported_before_any_work(
    tmp_path: Path, files: dict[str, Any], settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(RecipeError, match=problem):
        VisualGenome(path=write(tmp_path, **files), **settings).check()


def test_image_data_is_needed_only_without_a_folder_of_images(tmp_path: Path) -> None:
    write(tmp_path, region_descriptions=[{"id": 1, "regions": [REGION]}])
    (tmp_path / "image_data.json").unlink()
    (tmp_path / "1.jpg").write_bytes(picture(20, 30))
    with pytest.raises(RecipeError, match=r"no image_data\.json"):
        VisualGenome(path=str(tmp_path)).check()
    (row,) = read_all(VisualGenome(path=str(tmp_path), images=str(tmp_path))).to_pylist()
    assert boxes_of(row) == [([4, 5, 12, 18], "the clock is green")]


def test_photos_of_coco_in_the_published_form_are_read(tmp_path: Path) -> None:
    folder = real_data("A_captioned/coco_free_licence")
    path, boxes = write_photos(tmp_path, folder)
    rows = read_all(VisualGenome(path=path, content="objects", images=str(tmp_path))).to_pylist()
    assert len(rows) == 51 and all(row["drop"] is None for row in rows)
    assert sum(len(row["images"][0]["boxes"]) for row in rows) == len(boxes)
    for row in rows:
        image = row["images"][0]
        assert all(
            0 <= x0 < x1 <= image["width"] + 1 and 0 <= y0 < y1 <= image["height"] + 1 for x0, y0, x1, y1 in image["boxes"]
        )


def write_photos(target: Path, folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """Write COCO's photos and boxes in Visual Genome's form. Return the folder and the boxes."""
    boxes = json.loads((folder / "boxes.json").read_text())
    names = {record["id"]: record["image"] for record in map(json.loads, (folder / "manifest.jsonl").read_text().splitlines())}
    objects: dict[int, list[Any]] = {}
    (target / "VG_100K").mkdir()
    for box in boxes:
        x, y, w, h = box["bbox"]
        objects.setdefault(box["id"], []).append({"object_id": 1, "x": x, "y": y, "w": w, "h": h, "names": [box["category"]]})
    for number in objects:
        (target / "VG_100K" / f"{number}.jpg").write_bytes((folder / names[number]).read_bytes())
    facts = [{"image_id": number, "url": None, "coco_id": number} for number in objects]
    return write(target, image_data=facts, objects=[{"image_id": n, "objects": some} for n, some in objects.items()]), boxes
