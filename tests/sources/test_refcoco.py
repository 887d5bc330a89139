import json
import os
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.real_data import real_data
from tests.sources.pictures import picture
from tests.sources.reading import read_all
from vlmdata.readers import refer_files
from vlmdata.row import conform
from vlmdata.sources.refcoco import Refcoco
from vlmdata.step import RecipeError

NAME = "COCO_train2014_000000000001.jpg"


def sentence(text: str) -> dict[str, Any]:
    return {"tokens": text.split(), "raw": f"{text.title()}.", "sent_id": 5, "sent": text}


def ref(number: int, image: Any, *sentences: str, split: str = "train", **fields: Any) -> dict[str, Any]:
    """Return a ref as in refs(unc).p."""
    return {
        "sent_ids": list(range(len(sentences))),
        "file_name": f"COCO_train2014_{image:>012}_{number}.jpg",
        "ann_id": number,
        "ref_id": number,
        "image_id": image,
        "split": split,
        "category_id": 3,
        "sentences": [sentence(one) for one in sentences],
        **fields,
    }


INSTANCES = {
    "images": [{"id": 1, "file_name": NAME, "height": 60, "width": 80, "coco_url": "http://mscoco.org/images/1"}],
    "annotations": [
        {"id": 11, "image_id": 1, "bbox": [1.5, 2, 30, 40], "category_id": 3, "segmentation": [[1, 2, 3, 4]], "iscrowd": 0},
        {"id": 12, "image_id": 1, "bbox": [0, 0, 9, 9], "category_id": 4, "segmentation": []},
        {"id": 13, "image_id": 2, "bbox": [0, 0, 9, 9], "category_id": 4},
    ],
    "categories": [{"id": 3, "name": "person"}, {"id": 4, "name": "dog"}],
}


def write(folder: Path, refs: Any, *, protocol: int = 0, instances: Any = INSTANCES) -> str:
    (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol))
    (folder / "instances.json").write_text(json.dumps(instances))
    return str(folder / "refs(unc).p")


def read(source: Refcoco) -> tuple[list[dict[str, Any]], Counter[str]]:
    others: Counter[str] = Counter()
    return [row for table in source.read_counting(source.pieces()[0], others) for row in conform(table).to_pylist()], others


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_all_refs_of_an_image_are_one_row(tmp_path: Path, protocol: int) -> None:
    refs = [ref(11, 1, "lady left", "woman in blue", "Lady left"), ref(12, 1, "dog"), ref(12, 1, "right dog", split="testA")]
    (row,) = read_all(Refcoco(path=write(tmp_path, refs, protocol=protocol))).to_pylist()
    image = row["images"][0]
    assert image["boxes"] == [[1.5, 2, 31.5, 42], [1.5, 2, 31.5, 42], [0, 0, 9, 9]]
    assert image["box_labels"] == ["lady left", "woman in blue", "dog"]
    assert (image["url"], row["drop"]) == (f"http://images.cocodataset.org/train2014/{NAME}", None)
    assert json.loads(row["extra"]) == {
        "coco_id": 1,
        "file_name": NAME,
        "splits": ["train"],
        "categories": ["person", "person", "dog"],
        "ref_ids": [11, 11, 12],
    }


def test_the_split_decides_which_refs_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, [ref(11, 1, "a"), ref(12, 1, "b", split="testA"), ref(12, 1, "c", split="val")])
    (row,), others = read(Refcoco(path=path, split="testA"))
    assert (row["images"][0]["box_labels"], others) == (["b"], {"ref_of_another_split": 2})
    (row,), others = read(Refcoco(path=path, split="all"))
    assert (row["images"][0]["box_labels"], others) == (["a", "b", "c"], {})
    with pytest.raises(RecipeError, match=r"no ref in the split 'test'\. It has testA, train, val"):
        read(Refcoco(path=path, split="test"))


def test_refs_without_a_box_or_a_sentence_are_counted(tmp_path: Path) -> None:
    lost = [ref(99, 1, "a"), ref(13, 1, "a"), ref(11, 1), ref(11, 1, "a", ann_id=None), ref(11, 1, "b", ann_id=[{}])]
    rows, others = read(Refcoco(path=write(tmp_path, [*lost, ref(12, 1, "dog"), ref(99, 1)])))
    assert (rows[0]["images"][0]["box_labels"], others) == (["dog"], {"ref_without_box": 5, "ref_without_sentence": 1})


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (5, "the ref is not a dict"),
        ({"split": "train"}, "no number as 'image_id'"),
        ({"image_id": 1.5, "split": "train"}, "no number as 'image_id'"),
        ({"image_id": 1, "split": None}, "no text as 'split'"),
    ],
)
def test_a_ref_of_another_form_is_a_dropped_row_with_its_place(tmp_path: Path, value: Any, problem: str) -> None:
    bad, good = read_all(Refcoco(path=write(tmp_path, [value, ref(11, 1, "a")]))).to_pylist()
    assert (bad["reason"], bad["place"], good["reason"]) == ("bad_record", "refs(unc).p, ref 1", None)
    assert problem in bad["problem"]


@pytest.mark.parametrize("sentences", [None, "abc", [None, 5, {}, {"sent": 5}, " ", {"sent": ""}]])
def test_sentences_of_another_form_leave_an_image_without_boxes(tmp_path: Path, sentences: Any) -> None:
    (row,) = read_all(Refcoco(path=write(tmp_path, [ref(11, 1, sentences=sentences)]))).to_pylist()
    assert (row["reason"], row["place"]) == ("no_boxes", "refs(unc).p, image 1")


def test_an_image_that_is_not_listed_is_a_dropped_row(tmp_path: Path) -> None:
    (row,) = read_all(Refcoco(path=write(tmp_path, [ref(13, 2, "dog")]))).to_pylist()
    assert (row["reason"], row["place"]) == ("no_image", "refs(unc).p, image 2")


@pytest.mark.parametrize("name", [NAME, "000000000001.jpg"])
def test_images_are_files_of_train2014_or_train2017(tmp_path: Path, name: str) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / name).write_bytes(picture(80, 60, "JPEG"))
    source = Refcoco(path=write(tmp_path, [ref(11, 1, "a")]), images=str(tmp_path / "photos"))
    (row,) = read_all(source).to_pylist()
    assert (row["images"][0]["width"], row["reason"], source.by_address) == (80, None, False)


def test_the_json_of_grefcoco_is_read(tmp_path: Path) -> None:
    refs = [ref(1, 1, "both", ann_id=[11, 12]), ref(2, 1, "no target here", ann_id=[-1])]
    write(tmp_path, [])
    (tmp_path / "grefs(unc).json").write_text(json.dumps(refs))
    (row,), others = read(Refcoco(path=str(tmp_path / "grefs(unc).json")))
    assert (row["images"][0]["box_labels"], others) == (["both", "both"], {"ref_without_box": 1})
    assert row["images"][0]["boxes"] == [[1.5, 2, 31.5, 42], [0, 0, 9, 9]]


class Hostile:
    """An object whose pickle makes a folder when Python's unpickler reads it."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (self.folder,)


def test_a_pickle_with_code_is_one_clear_line_and_runs_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, [ref(11, 1, "a"), Hostile(str(tmp_path / "made"))])
    with pytest.raises(RecipeError, match=r"refs\(unc\)\.p cannot be read: the pickle names code .* nothing is run"):
        read_all(Refcoco(path=path))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "cannot be read: the pickle has no end"),
        (pickle.dumps([ref(11, 1, "a")])[:-9], "the pickle is damaged|has no end"),
        (pickle.dumps({"refs": []}), "must hold a list of refs, and holds a value of the type dict"),
        (b'[{"a": ', "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b"\x89PNG", "cannot be read"),
    ],
)
def test_a_file_that_holds_no_refs_is_a_clear_error(tmp_path: Path, data: bytes, problem: str) -> None:
    path = write(tmp_path, [])
    Path(path).write_bytes(data)
    with pytest.raises(RecipeError, match=problem):
        read_all(Refcoco(path=path))


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, [ref(11, 1, "a")])
    monkeypatch.setattr("vlmdata.readers.refer_files.LARGEST", 100)
    with pytest.raises(RecipeError, match="has more than 0 MiB"):
        read_all(Refcoco(path=path))


def test_missing_files_are_reported_before_any_work(tmp_path: Path) -> None:
    path = write(tmp_path, [])
    (tmp_path / "instances.json").unlink()
    with pytest.raises(RecipeError, match=r"instances\.json: there is no such file"):
        Refcoco(path=path).check()
    with pytest.raises(RecipeError, match="no such file"):
        Refcoco(path=str(tmp_path / "refs(umd).p")).check()


def test_a_box_of_another_form_is_no_box(tmp_path: Path) -> None:
    boxes = [[1, 2, 3], None, ["a", 1, 1, 1], [float("nan"), 0, 1, 1], [1e308, 0, 1e308, 1], [10**400, 0, 1, 1]]
    notes = [{"id": number, "image_id": 1, "bbox": box, "category_id": [3]} for number, box in enumerate(boxes)]
    refs = [ref(number, 1, "a") for number in range(len(boxes))]
    path = write(tmp_path, refs, instances={**INSTANCES, "annotations": notes})
    (row,), others = read(Refcoco(path=path))
    assert (row["reason"], others) == ("no_boxes", {"ref_without_box": 6})


def test_photos_of_coco_in_the_published_form_are_read(tmp_path: Path) -> None:
    folder = real_data("A_captioned/coco_free_licence")
    boxes = json.loads((folder / "boxes.json").read_text())
    records = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    images = [{"id": one["id"], "file_name": one["image"], "width": one["width"], "height": one["height"]} for one in records]
    notes = [{"id": n, "image_id": one["id"], "bbox": one["bbox"], "category_id": 3} for n, one in enumerate(boxes)]
    refs = [ref(n, one["id"], f"the {one['category']}") for n, one in enumerate(boxes)]
    path = write(tmp_path, refs, instances={"images": images, "annotations": notes, "categories": []})
    rows = read_all(Refcoco(path=path, images=str(folder))).to_pylist()
    assert len(rows) == len({one["id"] for one in boxes}) and all(row["drop"] is None for row in rows)
    assert sum(len(row["images"][0]["boxes"]) for row in rows) == len(boxes)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_number_of_a_ref_that_is_a_bomb_is_not_written(tmp_path: Path, protocol: int) -> None:
    bomb: list[Any] = []
    for _ in range(60):  # a file of 400 bytes whose value as a text would have 2**60 brackets
        bomb = [bomb, bomb]
    loop: list[Any] = []
    loop.append(loop)
    refs = [ref(11, 1, "a", ref_id=number) for number in (bomb, loop, {"a": loop}, 1 << 40_000, float("nan"), 8)]
    rows, _ = read(Refcoco(path=write(tmp_path, refs, protocol=protocol)))
    assert json.loads(rows[0]["extra"])["ref_ids"] == [None] * 5 + [8]
    bad, good = read(Refcoco(path=write(tmp_path, [ref(11, 1, "a", image_id=1 << 70), ref(11, 1, "a")], protocol=2)))[0]
    assert bad["reason"] == "bad_record" and good["reason"] is None


def test_a_list_that_refs_repeat_does_not_multiply_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = [sentence(f"dog {n}") for n in range(200)]
    many = ref(11, 1, sentences=said, ann_id=[11] * 60)
    rows, others = read(Refcoco(path=write(tmp_path, [ref(12, 1, "dog"), many, ref(11, 1, "man")])))
    assert (rows[0]["images"][0]["box_labels"], others) == (["dog", "man"], {"ref_beyond_most_boxes": 1})
    monkeypatch.setattr(refer_files, "MOST_SENTENCES", 999)
    with pytest.raises(RecipeError, match=r"has more than 999 sentences, which is no file of refs. Use `box_list`"):
        read(Refcoco(path=write(tmp_path, [ref(11, 1, sentences=said) for _ in range(5)])))
