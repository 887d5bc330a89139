import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.sources.pictures import picture
from vlmdata.readers.box_forms import BoxForm, Sized, corners_in, wrong_form
from vlmdata.row import conform
from vlmdata.sources.box_list import BoxList
from vlmdata.step import RecipeError

WIDTH, HEIGHT = 640, 480
CORNERS = [(20.0 * n, 10.0 * n, 20.0 * n + 150, 10.0 * n + 90) for n in range(24)]  # within the image
AS: dict[BoxForm, Any] = {
    "xyxy": lambda x0, y0, x1, y1: [x0, y0, x1, y1],
    "xywh": lambda x0, y0, x1, y1: [x0, y0, x1 - x0, y1 - y0],
    "xyxy_normalised": lambda x0, y0, x1, y1: [x0 / WIDTH, y0 / HEIGHT, x1 / WIDTH, y1 / HEIGHT],
    "xyxy_1000": lambda x0, y0, x1, y1: [x0 / WIDTH * 1000, y0 / HEIGHT * 1000, x1 / WIDTH * 1000, y1 / HEIGHT * 1000],
}


def write(folder: Path, records: list[Any]) -> str:
    (folder / "a.png").write_bytes(picture(WIDTH, HEIGHT))
    (folder / "list.jsonl").write_text("\n".join(json.dumps(one) for one in records))
    return str(folder / "list.jsonl")


def read(source: BoxList) -> tuple[list[dict[str, Any]], Counter[str]]:
    source.check()
    others: Counter[str] = Counter()
    return [
        row for one in source.pieces() for table in source.read_counting(one, others) for row in conform(table).to_pylist()
    ], others


@pytest.mark.parametrize("form", AS)
def test_boxes_of_every_form_become_pixels_of_the_image(tmp_path: Path, form: BoxForm) -> None:
    records = [{"image": "a.png", "bbox": AS[form](*box), "phrase": f"thing {n}", "score": n} for n, box in enumerate(CORNERS)]
    rows, others = read(BoxList(path=write(tmp_path, records), box_form=form))
    for number, (row, box) in enumerate(zip(rows, CORNERS, strict=True)):
        image = row["images"][0]
        assert image["boxes"][0] == pytest.approx(box) and image["box_labels"] == [f"thing {number}"]
        assert (json.loads(row["extra"]), row["drop"], row["texts"][1]["text"]) == ({"score": number}, None, "")
    assert others == {}


@pytest.mark.parametrize("form", ["xyxy_normalised", "xyxy_1000"])
def test_parts_of_an_image_that_is_not_fetched_stay_parts(tmp_path: Path, form: BoxForm) -> None:
    records = [{"image": "https://h/a.jpg", "bbox": AS[form](*box), "phrase": "thing"} for box in CORNERS]
    rows, _ = read(BoxList(path=write(tmp_path, records), box_form=form))
    image = rows[1]["images"][0]
    assert (image["boxes"], image["box_labels"], image["url"]) == (None, ["thing"], "https://h/a.jpg")
    assert image["original_boxes"][0] == pytest.approx(AS["xyxy_normalised"](*CORNERS[1]))


# without those for which nothing shows: pixels of a picture of less than 1000 pixels are also possible thousandths
FORMS = [(true, stated) for true in AS for stated in AS if true != stated and (true[:3] == "xyx" or stated != "xyxy_1000")]
FORMS.remove(("xyxy", "xyxy_1000"))


@pytest.mark.parametrize(("true", "stated"), FORMS)
def test_a_wrong_form_is_refused_with_the_right_one(tmp_path: Path, true: BoxForm, stated: BoxForm) -> None:
    path = write(tmp_path, [{"image": "a.png", "bbox": AS[true](*box), "phrase": "x"} for box in CORNERS])
    with pytest.raises(RecipeError, match=f"do not fit their images as {stated}") as error:
        BoxList(path=path, box_form=stated).check()
    assert true in str(error.value).partition("Set source.box_form: ")[2]


def test_a_form_is_judged_by_enough_boxes_only() -> None:
    sized = [Sized(AS["xywh"](*box), WIDTH, HEIGHT) for box in CORNERS]
    assert wrong_form(sized[:19], "xyxy") is None
    assert wrong_form(sized, "xywh") is None
    found = wrong_form(sized, "xyxy")
    assert found is not None and found[1] == ["xywh"]
    odd = [Sized([9.0, 9.0, 5000.0, 1.0], WIDTH, HEIGHT)]
    assert wrong_form(sized[:22] + odd * 2, "xywh") is None  # fewer than a tenth
    share = wrong_form(sized[:15] + odd * 9, "xywh")
    assert share is not None and share[1] == []


def test_boxes_that_fit_no_form_are_a_warning(tmp_path: Path) -> None:
    records = [
        {"image": "a.png", "bbox": [9, 9, 5000, -1], "phrase": "x"},
        {"image": "a.png", "bbox": [1, 1, 9, 9], "phrase": "x"},
    ]
    source = BoxList(path=write(tmp_path, records * 12), box_form="xywh")
    source.check()
    warning = source.warning()
    assert warning is not None and warning.startswith("source: 50% of the first 24 boxes do not fit their images as xywh")


def test_stated_sizes_show_a_wrong_form_before_images_are_fetched(tmp_path: Path) -> None:
    sizes = {"image": "https://h/a.jpg", "phrase": "x", "w": WIDTH, "h": HEIGHT}
    path = write(tmp_path, [{**sizes, "bbox": AS["xyxy"](*box)} for box in CORNERS])
    BoxList(path=path, box_form="xywh").check()  # without sizes, nothing shows
    with pytest.raises(RecipeError, match=r"Set source\.box_form: xyxy"):
        BoxList(path=path, box_form="xywh", width="w", height="h").check()
    with pytest.raises(RecipeError, match="belong together"):
        BoxList(path=path, box_form="xywh", width="w").check()


@pytest.mark.parametrize(
    ("boxes", "phrases", "labels"),
    [
        ([1, 2, 9, 9], "a dog", ["a dog"]),
        ([1, 2, 9, 9], ["a dog", " the\n dog "], ["a dog", "the dog"]),
        ([1, 2, 9, 9], [{"sent": "dog", "raw": "Dog."}, {"raw": "Cat."}], ["dog", "Cat."]),
        ([[1, 2, 9, 9], [0, 0, 5, 5]], ["dog", "cat"], ["dog", "cat"]),
        ([[1, 2, 9, 9], [0, 0, 5, 5]], ["dog", None], ["dog", None]),
        ([[1, 2, 9, 9]], ["dog"], ["dog"]),
        ("[[1, 2, 9, 9], [0, 0, 5, 5]]", '["dog", "cat"]', ["dog", "cat"]),
        ([1, 2, 9, 9], "half \ud800", ["half ?"]),
        ([1, 2, 9, 9], None, None),
        ([1, 2, 9, 9], 5, None),
    ],
)
def test_phrases_of_every_form_become_labels(tmp_path: Path, boxes: Any, phrases: Any, labels: Any) -> None:
    (row,), _ = read(BoxList(path=write(tmp_path, [{"image": "a.png", "bbox": boxes, "phrase": phrases}]), box_form="xyxy"))
    assert (row["images"][0]["box_labels"], row["reason"]) == (labels, None)
    assert len(row["images"][0]["boxes"]) == len(labels or [1])


@pytest.mark.parametrize(
    ("record", "reason", "counted"),
    [
        ({"image": "a.png", "bbox": [[1, 2, 9, 9], [0, 0, 5, 5]], "phrase": ["a", "b", "c"]}, "labels_do_not_fit", {}),
        ({"image": "a.png", "bbox": [], "phrase": "a"}, "no_boxes", {}),
        ({"image": "a.png", "bbox": None, "phrase": "a"}, "no_boxes", {}),
        ({"image": "a.png", "bbox": {"x": 1}, "phrase": "a"}, "no_boxes", {}),
        ({"image": "a.png", "bbox": "[1, 2", "phrase": "a"}, "no_boxes", {}),
        ({"image": "a.png", "bbox": [1, 2, 3], "phrase": "a"}, "no_boxes", {"bad_box": 1}),
        ({"image": "a.png", "bbox": [1, 2, "x", 3], "phrase": "a"}, "no_boxes", {"bad_box": 1}),
        ({"image": "a.png", "bbox": [1, 2, float("nan"), 3], "phrase": "a"}, "no_boxes", {"bad_box": 1}),
        ({"image": "a.png", "bbox": [1, 2, 10**400, 3], "phrase": "a"}, "no_boxes", {"bad_box": 1}),
        ({"image": "a.png", "bbox": [5, 5, 5, 9], "phrase": "a"}, "no_boxes", {"box_without_area": 1}),
        ({"image": "a.png", "bbox": [640, 5, 700, 9], "phrase": "a"}, "no_boxes", {"box_outside_picture": 1}),
        ({"image": "b.png", "bbox": [1, 2, 9, 9], "phrase": "a"}, "no_file", {}),
        ({"image": "../a.png", "bbox": [1, 2, 9, 9], "phrase": "a"}, "outside_folder", {}),
        ({"image": 5, "bbox": [1, 2, 9, 9], "phrase": "a"}, "no_image", {}),
    ],
)
def test_a_record_that_cannot_be_used_is_dropped_with_its_place(
    tmp_path: Path, record: dict[str, Any], reason: str, counted: dict[str, int]
) -> None:
    good = {"image": "a.png", "bbox": [1, 2, 9, 9], "phrase": "x"}
    (bad, fine), others = read(BoxList(path=write(tmp_path, [record, good]), box_form="xyxy"))
    assert (bad["reason"], bad["place"], fine["reason"], others) == (reason, "list.jsonl, row 1", None, counted)


def test_lines_that_are_not_json_are_bad_records(tmp_path: Path) -> None:
    path = write(tmp_path, [{"image": "a.png", "bbox": [1, 2, 9, 9], "phrase": "x"}])
    with open(path, "a") as file:
        file.write("\n{\n[1]\n")
    rows, _ = read(BoxList(path=path, box_form="xyxy"))
    assert [(row["reason"], row["place"]) for row in rows][1:] == [
        ("bad_record", "list.jsonl, line 2"),
        ("bad_record", "list.jsonl, line 3"),
    ]


def test_a_hub_table_with_images_in_parquet_is_read(tmp_path: Path) -> None:
    photo = {"bytes": picture(WIDTH, HEIGHT), "path": None}
    table = {
        "image": [photo] * 2,
        "bbox": [[1.0, 2.0, 30.0, 40.0]] * 2,
        "answer": [["left man", "man"], ["dog"]],
        "file_name": ["a", "b"],
    }
    pq.write_table(pa.table(table), tmp_path / "val.parquet")
    rows, _ = read(BoxList(path=str(tmp_path / "val.parquet"), box_form="xywh", phrase="answer"))
    assert [row["images"][0]["box_labels"] for row in rows] == [["left man", "man"], ["dog"]]
    assert (rows[0]["images"][0]["boxes"], rows[0]["images"][0]["width"]) == ([[1, 2, 31, 42]] * 2, WIDTH)
    assert json.loads(rows[0]["extra"]) == {"file_name": "a"}


def test_csv_with_boxes_as_json_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(WIDTH, HEIGHT))
    (tmp_path / "list.csv").write_text('file,box,expression\na.png,"[1, 2, 3, 4]",the dog\n')
    (row,), _ = read(BoxList(path=str(tmp_path / "list.csv"), box_form="xywh", image="file", box="box", phrase="expression"))
    assert (row["images"][0]["boxes"], row["images"][0]["box_labels"]) == ([[1, 2, 4, 6]], ["the dog"])


def test_a_missing_column_is_reported_with_the_nearest_name(tmp_path: Path) -> None:
    path = write(tmp_path, [{"image": "a.png", "bbox": [1, 2, 9, 9], "phrases": "x"}])
    with pytest.raises(RecipeError, match=r"no column 'phrase'\. Did you mean 'phrases'\?"):
        BoxList(path=path, box_form="xyxy").check()


def test_corners_of_numbers_that_are_not_finite_are_none() -> None:
    assert corners_in("xywh", [1e308, 0, 1e308, 1]) is None
    assert corners_in("xyxy_1000", [0, 500, 1000, 1000]) == [0, 0.5, 1, 1]
