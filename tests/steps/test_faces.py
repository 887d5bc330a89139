"""The step on real photos: its columns, its decisions, and what it stores in place of images with faces."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.fixtures import fixture
from tests.images.pictures import saved
from tests.parts import open_part
from tests.rows import captions, document, table
from tests.steps.group_photo import group_photo
from vlmdata.engine.work.ingest import Ingest
from vlmdata.images.decode import decode
from vlmdata.images.phash import phash
from vlmdata.row import conform
from vlmdata.step import RecipeError
from vlmdata.steps.faces import Faces
from vlmdata.steps.resize import Resize

WEIGHTS = str(fixture("J_faces/mtcnn"))
GROUP = group_photo()
BIKES, GUEST = (fixture(f"J_faces/photos/{n:012d}.jpg").read_bytes() for n in (11149, 347254))
EMPTY = fixture("A_captioned/coco_free_licence/000000012667.jpg").read_bytes()


def rows_of(folder, *documents: list[bytes], resize: bool = True):
    """Return documents of these images and the partition that holds them; with `resize`, as the step `resize` leaves them."""
    part = open_part(folder)
    if resize:
        rows = table([document("A text.", *({"data": body} for body in bodies)) for bodies in documents])
        return Ingest(resize=Resize(mode="no")).run(rows, part), part
    places = [[{"blob": part.blob.name, "offset": part.blob.add(body), "size": len(body)} for body in one] for one in documents]
    return table([document("A text.", *one) for one in places]), part


def images(rows: pa.Table, row: int = 0) -> list[dict]:
    return [image for image in rows["images"].to_pylist()[row] if image]


def stored(part, image: dict) -> bytes:
    return part.image_bytes(image["blob"], image["offset"], image["size"])


def test_faces_are_counted_and_their_boxes_stored(tmp_path):
    rows, part = rows_of(tmp_path, [GUEST, EMPTY], [BIKES])
    done = Faces(weights=WEIGHTS).run(rows, part)
    assert done["faces"].to_pylist() == [[None, 2, 0], [None, 1]]
    assert done["faces.boxes"].to_pylist()[0][2] == []
    ((x0, y0, x1, y1, probability),) = done["faces.boxes"].to_pylist()[1][1]
    assert (x0, probability > 0.95) == (0, True)  # the face is cut by the left edge
    assert [y0, x1, y1] == pytest.approx([0.054, 0.034, 0.157], abs=0.005)
    assert (done["images"] == rows["images"]) and done["drop"].to_pylist() == [None, None]


def test_a_changed_probability_counts_again_without_the_detector(tmp_path):
    rows, part = rows_of(tmp_path, [GUEST, EMPTY], [BIKES])
    measured = Faces(weights=WEIGHTS).run(rows, part)
    stricter = Faces(weights=WEIGHTS, min_probability=0.998).decide(measured)
    assert stricter["faces"].to_pylist() == [[None, 2, 0], [None, 0]]
    assert stricter["faces.boxes"] == measured["faces.boxes"]


def test_images_with_many_or_large_faces_are_rejected(tmp_path):
    rows, part = rows_of(tmp_path, [GROUP, GUEST], [BIKES], [GROUP])
    measured = Faces(weights=WEIGHTS).run(rows, part)
    many = Faces(weights=WEIGHTS, max_faces=10).decide(measured)
    assert [image["reason"] for image in images(many)] == ["max_faces", None]
    verdicts = [(row["drop"], row["reason"], row["value"], row["threshold"]) for row in many.to_pylist()]
    assert verdicts == [(None,) * 4, (None,) * 4, ("faces", "max_faces", 11, 10)]
    rows_too = Faces(weights=WEIGHTS, max_faces=10, rejects="row").decide(measured)
    assert rows_too["reason"].to_pylist() == ["max_faces", None, "max_faces"]
    large = Faces(weights=WEIGHTS, max_share=0.1).decide(measured)
    assert [image["reason"] for image in images(large)] == [None, "max_share"]
    assert images(large)[1]["value"] == pytest.approx(0.12, abs=0.01)
    assert Faces(weights=WEIGHTS, max_faces=0).decide(measured)["reason"].to_pylist() == ["max_faces"] * 3


def test_blurring_replaces_only_images_with_faces_and_their_facts(tmp_path):
    rows, part = rows_of(tmp_path, [GROUP, EMPTY])
    step = Faces(weights=WEIGHTS, blur=True)
    done = step.run(rows, part)
    before, after = images(rows), images(done)
    assert after[1] == before[1]
    pixels, was = decode(stored(part, after[0])).pixels, decode(stored(part, before[0])).pixels
    changed = {name for name in after[0] if after[0][name] != before[0][name]}
    assert changed <= {"offset", "size", "phash"} and after[0]["sha256"] == before[0]["sha256"]
    assert (after[0]["phash"] ^ phash(pixels)).bit_count() <= 2
    for x0, y0, x1, y1, _ in done["faces.boxes"].to_pylist()[0][1]:
        face = np.s_[int(y0 * 360) : int(y1 * 360), int(x0 * 480) : int(x1 * 480)]
        assert roughness(pixels[face]) < roughness(was[face]) / 2
    again = Faces(weights=WEIGHTS).run(done.drop_columns(["faces", "faces.boxes"]), part)
    assert again["faces"].to_pylist()[0][1] <= 1  # of eleven: the shape of a head remains


def roughness(pixels: np.ndarray) -> float:
    return float(np.abs(np.diff(pixels.astype(float), axis=1)).mean())


def test_a_face_at_the_left_edge_is_blurred_up_to_the_edge(tmp_path):
    rows, part = rows_of(tmp_path, [BIKES])
    done = Faces(weights=WEIGHTS, blur=True).run(rows, part)
    pixels, was = (decode(stored(part, images(one)[0])).pixels[22:58, :8] for one in (done, rows))
    assert roughness(pixels) < roughness(was) / 3


def test_images_without_a_step_that_decodes_them_are_examined_as_they_are(tmp_path):
    rotated, alpha, grey, frames = (io.BytesIO() for _ in range(4))
    picture = Image.open(io.BytesIO(GROUP))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.rotate(90, expand=True).save(rotated, "JPEG", exif=exif, quality=95)
    picture.convert("RGBA").save(alpha, "PNG")
    picture.convert("L").save(grey, "PNG")
    picture.save(frames, "GIF", save_all=True, append_images=[picture.transpose(Image.Transpose.ROTATE_180)])
    bodies = [one.getvalue() for one in (rotated, alpha, grey, frames)]
    rows, part = rows_of(tmp_path, bodies, resize=False)
    done = Faces(weights=WEIGHTS, blur=True).run(rows, part)
    assert done["faces"].to_pylist()[0][1:3] == [11, 11] and min(done["faces"].to_pylist()[0][3:]) >= 8
    facts = [(image["format"], image["width"], image["height"]) for image in images(done)]
    assert facts == [("jpeg", 480, 360), ("png", 480, 360), ("png", 480, 360), ("jpeg", 480, 360)]


def test_images_that_cannot_be_examined_are_rejected_and_others_have_no_face(tmp_path):
    bodies = [b"no image", saved(Image.new("1", (20_000, 20_000)), "PNG"), GROUP[:20_000]]
    rows, part = rows_of(tmp_path, [*bodies, EMPTY], [saved(Image.new("RGB", (1, 1)), "PNG")], bodies[:1], resize=False)
    for blur in (False, True):
        done = Faces(weights=WEIGHTS, blur=blur).run(rows, part)
        assert done["faces"].to_pylist() == [[None, None, None, None, 0], [None, 0], [None, None]]
        assert [image["reason"] for image in images(done)] == [*["not_examined"] * 3, None]
        assert done["reason"].to_pylist() == [None, None, "not_examined"]


def test_an_image_that_rows_share_is_stored_once(tmp_path):
    rows, part = rows_of(tmp_path, [BIKES])
    done = Faces(weights=WEIGHTS, blur=True).run(pa.concat_tables([rows, rows]), part)
    assert images(done, 0) == images(done, 1)


def test_a_rejected_row_before_the_step_is_left_alone(tmp_path):
    rows, part = rows_of(tmp_path, [BIKES], [EMPTY])
    rows = rows.set_column(rows.column_names.index("drop"), "drop", pa.array(["other", None]))
    done = Faces(weights=WEIGHTS, blur=True, max_faces=0).run(rows, part)
    assert done["drop"].to_pylist() == ["other", None] and images(done) == images(rows)


def with_column(column: pa.Array, **fields) -> pa.Table:
    rows = captions(["a"] * len(column), **fields)
    return rows.append_column("own.boxes", column)


def test_boxes_of_another_step_are_counted_without_a_model():
    boxes = [
        [[[0.0, 0.0, 0.5, 0.5, 0.9], [0.5, 0.5, 1.0, 1.0, 0.3]], None],
        [[], None],
        [None, None],
        [[[0.0, 0.0, float("nan"), 1.0]], None],
    ]
    rows = with_column(pa.array(boxes, pa.list_(pa.list_(pa.list_(pa.float32())))))
    step = Faces(boxes="own.boxes", max_share=0.2)
    done = step.run(rows)
    assert done["faces"].to_pylist() == [[1, None], [0, None], [None, None], [None, None]]
    assert done["reason"].to_pylist() == ["max_share", None, "not_examined", "not_examined"]
    assert (step.needed(), step.packages_needed(), step.fields_fetched()) == ((), (), ())
    assert step.columns_read() == ("images", "own.boxes")


def test_boxes_of_the_source_are_in_pixels():
    rows = captions(["a", "b"], boxes=[[[0, 0, 50, 50], [60, 60, 70, 80]], None], width=[100, 100], height=[100, 100])
    done = Faces(boxes="images.boxes", max_faces=1).run(rows)
    assert done["faces.boxes"].to_pylist() == [[[[0, 0, 0.5, 0.5, 1], [0.6, 0.6, 0.7, 0.8, 1]], None], [[], None]]
    assert done["reason"].to_pylist() == ["max_faces", None]


def test_boxes_of_another_step_are_blurred(tmp_path):
    rows, part = rows_of(tmp_path, [EMPTY])
    rows = rows.append_column("own.boxes", pa.array([[None, [[0.0, 0.0, 0.4, 0.4]]]]))
    done = Faces(boxes="own.boxes", blur=True).run(rows, part)
    assert images(done)[0]["offset"] != images(rows)[0]["offset"]


def test_boxes_that_would_take_minutes_to_blur_reject_the_image_and_many_small_ones_do_not(tmp_path):
    large, small = [[0.0, 0.0, 1.0, 1.0]] * 1000, [[n / 400, 0.1, n / 400 + 0.02, 0.13] for n in range(300)]
    rows, part = rows_of(tmp_path, [GROUP], [GROUP])
    rows = rows.append_column("mine.boxes", pa.array([[None, large], [None, small]]))
    done = Faces(boxes="mine.boxes", blur=True).run(rows, part)
    assert done["reason"].to_pylist() == ["not_examined", None]
    assert done["faces"].to_pylist()[1] == [None, 300]


def test_a_column_that_holds_no_boxes_is_named():
    rows = with_column(pa.array([[0.5, None]]))
    with pytest.raises(RecipeError, match=r"^faces\.boxes: the column own\.boxes holds list<.*>, not a list of boxes"):
        Faces(boxes="own.boxes").run(rows)


WRONG = [
    ({}, "faces.weights: give either weights or boxes"),
    ({"weights": WEIGHTS, "boxes": "a.boxes"}, "faces.weights: give either weights or boxes"),
    ({"weights": WEIGHTS, "min_probability": 1.1}, "faces.min_probability must lie in [0, 1], not 1.1"),
    ({"weights": WEIGHTS, "max_share": -0.1}, "faces.max_share must lie in [0, 1], not -0.1"),
    ({"weights": WEIGHTS, "side": 5000}, "faces.side must lie in [12, 2048], not 5000"),
    ({"weights": WEIGHTS, "quality": 0}, "faces.quality must lie in [1, 100], not 0"),
    ({"weights": WEIGHTS, "min_face": 11}, "faces.min_face must be at least 12"),
    ({"weights": WEIGHTS, "max_faces": -1}, "faces.max_faces must be at least 0, not -1"),
]


@pytest.mark.parametrize(("parameters", "says"), WRONG)
def test_wrong_parameters_are_named(parameters, says):
    with pytest.raises(RecipeError) as raised:
        Faces(**parameters).check()
    assert str(raised.value).startswith(says)


def test_only_a_step_that_blurs_writes_images():
    assert "images" not in Faces(weights=WEIGHTS).columns_written()
    assert "images" in Faces(weights=WEIGHTS, blur=True).columns_written()
    same = Faces(weights=WEIGHTS, blur=True, min_probability=0.9).identity()
    assert same != Faces(weights=WEIGHTS, blur=True).identity() != Faces(weights=WEIGHTS).identity()
    assert Faces(weights=WEIGHTS).identity() == Faces(weights=WEIGHTS, min_probability=0.9, max_faces=3).identity()


def test_rows_without_images_are_accepted():
    assert len(Faces(weights=WEIGHTS).run(conform(pa.table({"key": pa.array([], pa.string())})))) == 0
