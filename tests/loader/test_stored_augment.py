"""A stored view is applied to the pixels, the boxes follow, and a resumed stream draws the same views."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.loader.tars import sample_files, write_tar
from vlmdata import stream
from vlmdata.errors import InputError
from vlmdata.images import augmentations
from vlmdata.images.augmentations import apply, read_operations
from vlmdata.images.decode import decode
from vlmdata.images.draw_augmentations import Forbidden, Ranges, draw_view, generator_of
from vlmdata.loader.decoding import Decode
from vlmdata.loader.map_style import Rows
from vlmdata.loader.read_samples import DamagedSample
from vlmdata.loader.stream import ReadOptions

SIZE = 160, 120
RANGES = Ranges((0.5, 1), (0.75, 4 / 3), 0.5, 0.0, 15, 0.3, 0.3)
BOX = [60.0, 40.0, 100.0, 80.0]


def png(box: list[float]) -> bytes:
    pixels = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    x0, y0, x1, y1 = map(round, box)
    pixels[y0:y1, x0:x1] = 255
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "png")
    return target.getvalue()


def views(name: str, count: int = 10, ranges: Ranges = RANGES) -> list[Any]:
    drawn = (draw_view(generator_of(name, n), ranges, Forbidden(), lambda _: True) for n in range(count))
    return [[str(one) for one in view] for view in drawn]


def sample(number: int = 0, **facts: Any) -> dict[str, bytes]:
    made = {"boxes": [BOX, None], "scores": {"augment": views(str(number))}, **facts}
    return {"png": png(BOX), "txt": b"a square", "json": json.dumps(made).encode()}


def dataset(folder: Path, count: int = 40) -> Path:
    return write_tar(folder / "0.tar", [file for n in range(count) for file in sample_files(f"{n}", sample(n))])


def read(made: dict[str, Any], seed: int = 0, **changes: Any) -> dict[str, Any]:
    decode = Decode(**{"stored_augment": "augment", **changes})
    return decode({"__key__": "k", "__url__": "a.tar", "__seed__": seed, **made})


def test_one_of_the_stored_views_is_applied_before_the_resize() -> None:
    made = sample()
    pixels = decode(made["png"]).pixels
    expected = {apply(pixels, read_operations(view)).tobytes() for view in views("0")}
    drawn = {read(made, seed)["png"].tobytes() for seed in range(120)}
    assert drawn == expected and len(expected) == 10
    assert read(made, 3, size=48, filter="area")["png"].shape == (48, 48, 3)


@pytest.mark.parametrize("settings", [{}, {"size": 64, "filter": "area"}, {"size": 90, "mode": "border", "filter": "area"}])
def test_shown_boxes_lie_where_the_pixels_show_the_box(settings: dict[str, Any]) -> None:
    flips = [["resized_crop 0.2 0.1 0.9 0.8", "hflip"]]
    found = read(sample(scores={"augment": flips}), **settings)
    rows, columns = np.nonzero(found["png"][..., 0] > 127)
    if settings.get("mode") == "border":
        inside = (rows > 12) & (rows < 78)
        rows, columns = rows[inside], columns[inside]
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    shown, nothing = found["json"]["shown_boxes"]
    assert nothing is None and np.abs(np.array(shown) - seen).max() <= 1.01
    assert found["json"]["boxes"] == [BOX, None], "boxes keep their meaning"


def test_a_box_outside_of_the_picture_and_a_value_that_is_no_box_are_none() -> None:
    cut = {"augment": [["resized_crop 0.0 0.0 0.3 0.3"]]}
    boxes = [BOX, "box", [1, 2, 3], [0, 0, 10**400, 5], [float("nan")] * 4, [0, 0, 10, 10]]
    shown = read(sample(scores=cut, boxes=boxes))["json"]["shown_boxes"]
    assert shown[:5] == [None] * 5 and shown[5] == pytest.approx([0, 0, 33.33, 33.33], abs=0.4)


def test_a_box_of_another_tool_ends_at_the_edge_of_the_image() -> None:
    moved = {"augment": [["translate_x -0.5"]]}
    shown = read(sample(scores=moved, boxes=[[100, 10, 900, 50]]))["json"]["shown_boxes"]
    assert shown == [[20.0, 10.0, 80.0, 50.0]]


def test_a_box_that_was_cut_off_is_none_even_if_its_place_comes_back() -> None:
    away = ["translate_x 0.5", "translate_x -0.5"]
    shown = read(sample(scores={"augment": [away]}, boxes=[[100, 10, 150, 50], [10, 10, 60, 50]]))["json"]["shown_boxes"]
    assert shown == [None, [10.0, 10.0, 60.0, 50.0]]


def test_images_of_a_document_get_their_own_views() -> None:
    flip, none = [["hflip"]], None
    facts = {
        "texts": [None, "x", None, None],
        "metadata": [{"file": "0.png", "boxes": [BOX]}, None, {"file": "1.png"}, {"file": "2.png"}],
        "scores": {"augment": [flip, None, none, []]},
    }
    image = png([10.0, 40.0, 30.0, 80.0])
    found = read({"0.png": image, "1.png": image, "2.png": image, "json": json.dumps(facts).encode()})
    plain = decode(image).pixels
    assert np.array_equal(found["0.png"], plain[:, ::-1])
    assert np.array_equal(found["1.png"], plain) and np.array_equal(found["2.png"], plain)
    assert found["json"]["metadata"][0]["shown_boxes"] == [[60.0, 40.0, 100.0, 80.0]]
    assert "shown_boxes" not in found["json"]["metadata"][2]


def test_the_frame_of_a_sample_is_that_of_its_pixels() -> None:
    made = {"__key__": "k", "__url__": "a.tar", "__seed__": 4, **sample()}
    decoder = Decode(60, stored_augment="augment", filter="area")
    frame = decoder.frame_of(made, "png")
    assert (frame.width, frame.height) == (60, 60)
    fractions = (BOX[0] / 160, BOX[1] / 120, BOX[2] / 160, BOX[3] / 120)
    box, _ = frame.box(fractions) or pytest.fail("the box is outside")
    assert [edge * 60 for edge in box] == pytest.approx(decoder(made)["json"]["shown_boxes"][0], abs=0.01)
    whole = Decode(60, filter="area").frame_of(made, "png").box(fractions)
    assert whole is not None and whole[0] == pytest.approx((1 / 3, 1 / 3, 2 / 3, 2 / 3))


def drawn(samples: Any) -> dict[str, bytes]:
    return {one["__key__"]: one["png"].tobytes() for one in samples}


def test_a_resumed_stream_draws_the_same_views_on_any_ranks(tmp_path: Path) -> None:
    tar = dataset(tmp_path)
    reading = ReadOptions(cache=tmp_path, threads=0)
    made = stream(tar, decode=Decode(stored_augment="augment"), reading=reading, torch=False, seed=1)
    whole = drawn(made)
    for rank in range(3):
        part = stream(
            tar, decode=Decode(stored_augment="augment"), reading=ReadOptions(cache=tmp_path, threads=2), torch=False, seed=1,
            rank=rank, world_size=3,
        )  # fmt: skip
        part.load_state_dict({**part.state_dict(), "position": 10})
        found = drawn(one for one in part if "__pad__" not in one)
        assert found and all(whole[key] == pixels for key, pixels in found.items())


def test_workers_draw_the_same_views(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    tar = dataset(tmp_path, 16)
    made = stream(tar, decode=Decode(stored_augment="augment"), reading=ReadOptions(cache=tmp_path), seed=1, batch_size=4)
    alone = drawn(one for batch in made for one in batch)
    made.set_epoch(0)
    shared = drawn(one for batch in made.loader(num_workers=2) for one in batch)
    assert alone == shared and len(alone) == 16


def test_two_epochs_draw_different_views(tmp_path: Path) -> None:
    made = stream(
        dataset(tmp_path), decode=Decode(stored_augment="augment"), reading=ReadOptions(cache=tmp_path), torch=False, seed=1
    )
    first, second = drawn(made), drawn(made)
    assert first.keys() == second.keys() and sum(first[key] != second[key] for key in first) > 25, "one in ten is the same"
    made.set_epoch(0)
    assert drawn(made) == first


def test_rows_by_number_are_augmented_too(tmp_path: Path) -> None:
    rows = Rows(str(dataset(tmp_path, 3)), decode=Decode(stored_augment="augment"), cache=tmp_path)
    assert rows[1]["json"]["shown_boxes"][0] is not None


def test_a_dataset_without_the_column_is_an_error_that_names_the_fix() -> None:
    with pytest.raises(InputError, match=r"no column 'augment' with augmentations. Its columns: clip_score. Build the dataset"):
        read(sample(scores={"clip_score": 0.3}))
    with pytest.raises(InputError, match="Its columns: none"):
        read({"png": png(BOX), "json": b"[]"})
    with pytest.raises(InputError, match="stored_augment must be the name of a step `augment`"):
        Decode(stored_augment=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [7, "hflip", [7], [["explode"]], {"a": 1}])
def test_a_column_of_another_form_is_damage(value: Any) -> None:
    with pytest.raises(DamagedSample, match=r"a.tar, sample 'k', member 'json': "):
        read(sample(scores={"augment": value}))


def test_without_stored_augment_nothing_changes() -> None:
    found = read(sample(), stored_augment=None)
    assert np.array_equal(found["png"], decode(png(BOX)).pixels) and "shown_boxes" not in found["json"]


def test_an_image_with_boxes_in_its_texts_is_not_moved() -> None:
    view = ["resized_crop 0.1 0.1 0.8 0.9", "hflip", "brightness 1.3", "rotate 8"]
    grounding = {"task": "mention", "spans": []}
    found = read(sample(scores={"augment": [view]}, grounding=grounding))
    assert np.array_equal(found["png"], apply(decode(png(BOX)).pixels, read_operations(["brightness 1.3"])))
    assert found["json"]["shown_boxes"] == [BOX, None]


def test_with_a_form_the_boxes_of_texts_follow_the_pixels() -> None:
    text = "the square [0.375, 0.333, 0.625, 0.667] is white"
    span = {"start": 0, "phrase_end": 10, "end": 39, "words": text[:39], "image": 0, "boxes": [0]}
    facts = {"grounding": {"task": "mention", "spans": [span]}, "boxes": [[0.0, 40.0, 40.0, 80.0]]}
    made = {**sample(scores={"augment": [["hflip"]]}, **facts), "txt": text.encode(), "png": png([0.0, 40.0, 40.0, 80.0])}
    found = read(made, grounding="qwen2_vl", alternatives=False)
    assert "(750,333),(1000,667)" in found["txt"] and found["json"]["shown_boxes"] == [[120.0, 40.0, 160.0, 80.0]]
    assert (found["png"][60, 120:] == 255).all() and not found["png"][60, :119].any()
    cut = sample(scores={"augment": [["resized_crop 0.5 0 1 1"]]}, **facts)
    assert read({**made, "json": cut["json"]}, grounding="qwen2_vl", alternatives=False)["txt"] == "the square is white"


def test_many_boxes_take_no_time_that_grows_with_calls_for_each() -> None:
    count = 50_000
    made = sample(boxes=[BOX] * count, scores={"augment": [["rotate 8", "shear_x 0.1"]]})
    calls: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        real = augmentations.affine
        patch.setattr(augmentations, "affine", lambda *given: calls.append(1) or real(*given))
        shown = read(made)["json"]["shown_boxes"]
    assert len(shown) == count and shown[0] == shown[-1] and len(calls) <= 2


def test_the_limit_of_memory_counts_what_the_operations_take() -> None:
    facts = {"scores": {"augment": [["hue 0.1"]]}, "boxes": []}
    target = io.BytesIO()
    Image.new("RGB", (1000, 1000)).save(target, "jpeg")
    made = {"jpg": target.getvalue(), "json": json.dumps(facts).encode()}
    assert read(made, stored_augment=None, max_memory_mb=30)["jpg"].shape == (1000, 1000, 3)
    with pytest.raises(DamagedSample, match="more than the limit of 30 MB"):
        read(made, max_memory_mb=30)
    assert read(made, max_memory_mb=46)["jpg"].shape == (1000, 1000, 3)


def test_a_view_of_more_operations_than_the_step_draws_is_damage() -> None:
    assert read(sample(scores={"augment": [["hflip"] * 24]}))["png"].shape == (120, 160, 3)
    with pytest.raises(DamagedSample, match="a list of at most 24 operations"):
        read(sample(scores={"augment": [["hflip"] * 25]}))
