"""Text is drawn in known places, and must be found and read there by the real models."""

import io
import os
import types
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageDraw, ImageFont

from tests.fixtures import fixture
from tests.images.pictures import exif, photo, saved
from tests.real_data import real_data
from tests.rows import captions, document, table
from vlmdata.images.text_regions import unpacked
from vlmdata.models.ocr_files import ocr_files
from vlmdata.row import drop_rows, set_column
from vlmdata.step import RecipeError
from vlmdata.steps.text_in_image import TextInImage

pytest.importorskip("rapidocr", reason="vlmdata[ocr] is not installed")

SIZE = 600, 400
WORDS = "GRAND CENTRAL"
PLACE = 60, 150  # of the upper left corner of the text, in pixels


class Part:
    """A partition whose blob is a list of images."""

    def __init__(self, images: list[bytes]):
        self.images = images
        self.objects: dict[str, object] = {}
        self.notes: list[dict] = []

    def image_bytes(self, blob: str, offset: int, size: int) -> bytes:
        return self.images[offset]

    def kept(self, name: str, make):
        if name not in self.objects:
            READERS.setdefault(name, make())  # models load once for all tests of a process
            self.objects[name] = READERS[name]
        return self.objects[name]

    def note(self, facts: dict) -> None:
        self.notes.append(facts)


# Pictures of ../shared/data, labelled by eye before the detector saw them: with words or numbers that are easy to read, and
# without text. Pictures with text that can hardly be read are left out.
COCO, BOOK = "A_captioned/coco_free_licence/", "A_captioned/openstax/sociology-3e/media/"
WITH_TEXT = [
    *(f"{COCO}000000{name}.jpg" for name in ["161044", "519208", "460229", "408805", "361919", "003553", "568290"]),
    *(
        f"{BOOK}Soc3e_{name}.jpg"
        for name in ["12_01_03a", "18_03_01", "18_01_01", "20_01_05", "20_01_06", "11_05_6x", "12_01_05a"]
    ),
    *(f"{BOOK}Soc3e_{name}.jpg" for name in ["18_01_06a", "14_03_03", "01_02_03", "13_03_01"]),
    *(f"{BOOK}{name}.jpg" for name in ("Table_18_01_01", "Figure_10_02_05", "CNX_Soc2e_Figure_07_01_001")),
]
WITHOUT_TEXT = [
    *(f"{COCO}000000{name}.jpg" for name in ["030213", "117425", "020247", "007991", "229997", "000872", "011511"]),
    *(f"{COCO}000000{name}.jpg" for name in ["126107", "012062", "078499", "349860", "397133", "159269"]),
    *(f"{BOOK}CNX_Soc2e_Figure_{name}_01_001.jpg" for name in ("19", "21", "16")),
    *(f"{BOOK}Soc3e_15_02_{name}.jpg" for name in ("02a", "07")),
]
READERS: dict[str, object] = {}


def drawn(words: str = WORDS, size: int = 60, canvas: tuple[int, int] = SIZE, place: tuple[int, int] = PLACE) -> Image.Image:
    image = Image.new("RGB", canvas, (235, 235, 225))
    ImageDraw.Draw(image).text(place, words, fill=(20, 20, 60), font=ImageFont.load_default(size))
    return image


def corners() -> np.ndarray:
    """Return the corners (4, 2) of the text of `drawn()`, as shares of the image's sides."""
    left, top, right, bottom = ImageDraw.Draw(drawn()).textbbox(PLACE, WORDS, font=ImageFont.load_default(60))
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)]) / SIZE


def places(images: list[bytes]) -> dict[str, list]:
    return {"blob": ["b"] * len(images), "offset": list(range(len(images))), "size": [len(one) for one in images]}


def run(step: TextInImage, images: list[bytes], texts: list[str] | None = None) -> pa.Table:
    return step.run(captions(texts or ["a caption"] * len(images), **places(images)), Part(images))


def first(rows: pa.Table, column: str) -> list:
    """Return the value of each row's image in a measured column."""
    return [row[0] for row in rows[column].to_pylist()]


def test_text_is_found_where_it_was_drawn():
    rows = run(TextInImage(), [saved(drawn(), "PNG")])
    assert first(rows, "text_in_image.boxes") == [1]
    (region,) = unpacked(first(rows, "text_in_image.regions")[0])
    assert np.abs(region - corners()).max() < 0.03
    assert 1 <= first(rows, "text_in_image")[0] / np.prod(corners()[2] - corners()[0]) < 1.5
    assert first(rows, "text_in_image.text") == first(rows, "text_in_image.overlap") == [None], "nothing was read"


def test_pictures_without_text_have_no_area():
    rows = run(TextInImage(max_area=0), [saved(photo(300, 200), "PNG"), saved(Image.new("RGB", SIZE), "PNG")])
    assert first(rows, "text_in_image") == [0, 0] and first(rows, "text_in_image.boxes") == [0, 0]
    assert first(rows, "text_in_image.regions") == [b"", b""] and rows["drop"].null_count == 2


def test_an_animal_that_the_detector_takes_for_a_letter_is_no_text_and_a_sign_is():
    bear, sign = (
        (fixture("A_captioned/coco_free_licence") / f"000000{name}.jpg").read_bytes() for name in ("000285", "252332")
    )
    rows = run(TextInImage(recognise=True), [bear, sign])
    assert first(rows, "text_in_image.boxes")[0] == 0
    assert "STOP" in first(rows, "text_in_image.text")[1] and first(rows, "text_in_image")[1] > 0.15


def test_the_words_of_the_picture_and_of_the_caption_are_compared():
    image = saved(drawn(), "PNG")
    texts = ["The Grand Central station at night", "grand, central!", "A cat", "\u7070\u8272\u7684\u732b"]
    rows = run(TextInImage(recognise=True), [image] * 4, texts)
    assert first(rows, "text_in_image.text") == [WORDS] * 4
    assert first(rows, "text_in_image.overlap") == pytest.approx([2 / 5, 1, 0, 0])
    assert first(rows, "text_in_image.in_caption") == [1, 1, 0, 0]


def test_a_picture_without_text_shows_nothing_of_its_caption():
    rows = run(TextInImage(recognise=True), [saved(photo(300, 200), "PNG")] * 2, ["Grand Central", "(a)"])
    assert first(rows, "text_in_image.overlap") == [0, None]
    assert first(rows, "text_in_image.in_caption") == [None, None]


def test_an_image_of_a_document_is_compared_with_its_alt_text_and_caption_only():
    images = [saved(drawn(), "PNG")]
    one = {name: values[0] for name, values in places(images).items()}
    rows = table(
        [
            document({**one, "alt": "Central", "caption": "a station"}, "Grand Central", "Grand"),
            document(one, "Grand Central", "Grand"),
            document({**one, "alt": "a station"}, "Grand Central"),
        ]
    )
    found = TextInImage(recognise=True).run(rows, Part(images))
    assert first(found, "text_in_image.overlap") == [1, None, 1]


def test_alternatives_are_not_compared():
    images = [saved(drawn(), "PNG")]
    rows = captions(["A station"], **places(images)).to_pylist()
    rows[0]["texts"][1]["alternatives"] = ["Grand Central"]
    found = TextInImage(recognise=True).run(table([{name: rows[0][name] for name in ("images", "texts")}]), Part(images))
    assert first(found, "text_in_image.overlap") == [0]


def test_a_changed_caption_measures_again_only_if_text_is_read():
    assert TextInImage().columns_read() == ("images",)
    assert TextInImage(recognise=True).columns_read() == ("images", "texts.text")


def test_limits_decide_on_stored_values_and_a_value_at_the_limit_is_kept():
    kind = pa.list_(pa.float32())
    rows = captions(list("abc"))
    for column, values in (("text_in_image", [0.1, 0.2, 0.3]), ("text_in_image.overlap", [0.7, 0.5, None])):
        rows = set_column(rows, column, pa.array([[value, None] for value in values], kind))
    rows = set_column(rows, "text_in_image.failure", pa.array([[None, None]] * 3, pa.list_(pa.string())))
    limited = TextInImage(recognise=True, max_area=0.2, max_overlap=0.5).decide(rows)
    assert limited["reason"].to_pylist() == ["max_overlap", None, "max_area"]
    assert limited["value"].to_pylist() == pytest.approx([0.7, None, 0.3]) and limited["threshold"].to_pylist() == [
        0.5,
        None,
        0.2,
    ]
    assert TextInImage().decide(rows)["drop"].null_count == 3
    assert TextInImage.measured_by == ("recognise", "side"), "a limit is no part of the measurement's name"


def test_rows_that_an_earlier_step_rejected_have_no_values_and_stay_as_they_are():
    rows = captions(list("ab"))
    rows = drop_rows(rows, np.array([True, False]), "image_size")
    for column, kind in TextInImage.writes.items():
        value = "not_decodable" if column == "failure" else None
        name = f"text_in_image.{column}" if column else "text_in_image"
        rows = set_column(rows, name, pa.array([None, [value, None]], kind))
    decided = TextInImage().decide(rows)
    assert decided["drop"].to_pylist() == ["image_size", "text_in_image"]
    assert decided["reason"].to_pylist() == [None, "not_decodable"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_area": 1.5}, r"^text_in_image\.max_area must lie in \[0, 1\], such as 0\.2, not 1\.5$"),
        ({"max_area": float("nan")}, r"^text_in_image\.max_area must lie in \[0, 1\]"),
        ({"max_overlap": -0.1, "recognise": True}, r"^text_in_image\.max_overlap must lie in \[0, 1\]"),
        ({"max_overlap": 0.5}, r"^text_in_image\.max_overlap compares words that are read\. Add recognise: true$"),
        ({"side": 10}, r"^text_in_image\.side must lie in \[64, 4096\], such as 512, not 10$"),
    ],
)
def test_mistakes_are_reported_before_any_work(given, message):
    with pytest.raises(RecipeError, match=message):
        TextInImage(**given).check()
    TextInImage(recognise=True, max_overlap=0.5, max_area=0).check()


def test_images_that_cannot_be_decoded_are_dropped_and_others_are_measured():
    good = saved(drawn(), "JPEG")
    bomb = saved(Image.new("1", (9000, 9000)), "png")
    rows = run(TextInImage(recognise=True), [b"", b"no image", good[:300], bomb, good])
    assert rows["reason"].to_pylist() == ["not_decodable"] * 4 + [None]
    assert first(rows, "text_in_image.boxes") == [None] * 4 + [1]


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (3000, 8), (8, 3000), (31, 31)])
def test_tiny_and_thin_images_have_no_text(size):
    rows = run(TextInImage(recognise=True), [saved(Image.new("RGB", size, (9, 200, 30)), "PNG")])
    assert first(rows, "text_in_image") == [0] and first(rows, "text_in_image.text") == [""]


def test_an_image_without_stored_bytes_is_not_measured_and_stays():
    rows = TextInImage(max_area=0).run(captions(["a"]), Part([]))
    assert first(rows, "text_in_image") == [None] and rows["drop"].null_count == 1


def formats() -> dict[str, bytes]:
    image = drawn()
    clear = Image.merge("RGBA", (*image.split(), image.convert("L").point(lambda level: 255 * (level < 128))))
    animated = io.BytesIO()
    image.save(animated, "WEBP", save_all=True, append_images=[Image.new("RGB", SIZE, "red")], lossless=True)
    sideways = image.transpose(Image.Transpose.ROTATE_90)
    return {
        "grey": saved(image.convert("L"), "PNG"),
        "palette": saved(image.convert("P"), "PNG"),
        "alpha": saved(clear, "PNG"),
        "cmyk": saved(image.convert("CMYK"), "JPEG"),
        "16 bits": saved(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257), "PNG"),
        "exif": saved(sideways, "JPEG", exif=exif(6)),
        "animated": animated.getvalue(),
        "large": saved(image.resize((6000, 4000)), "JPEG"),
    }


@pytest.mark.parametrize("name", ["grey", "palette", "alpha", "cmyk", "16 bits", "exif", "animated", "large"])
def test_text_is_found_and_read_in_an_image_of_any_form(name):
    rows = run(TextInImage(recognise=True), [formats()[name]])
    (region,) = unpacked(first(rows, "text_in_image.regions")[0])
    assert first(rows, "text_in_image.text") == [WORDS]
    assert np.abs(region - corners()).max() < 0.05


@pytest.mark.parametrize("degrees", [30, 90, 180, 270])
def test_rotated_text_is_found_and_read(degrees):
    image = drawn().rotate(degrees, expand=True, fillcolor=(235, 235, 225))
    rows = run(TextInImage(recognise=True), [saved(image, "PNG")])
    assert first(rows, "text_in_image.text") == [WORDS]


def test_lines_are_stored_from_top_to_bottom():
    image = drawn("FIRST LINE\nSECOND LINE\nTHIRD LINE", 40, place=(40, 40))
    rows = run(TextInImage(recognise=True), [saved(image, "PNG")])
    assert first(rows, "text_in_image.text") == ["FIRST LINE\nSECOND LINE\nTHIRD LINE"]


def test_a_result_does_not_depend_on_the_images_before_it():
    images = [saved(drawn(), "PNG"), saved(photo(300, 200), "PNG"), saved(drawn("OTHER WORDS", 30), "PNG")]
    at_once = [run(TextInImage(recognise=read), images + images[::-1]) for read in (False, True)]
    for read, rows in zip((False, True), at_once, strict=True):
        alone = [first(run(TextInImage(recognise=read), [image]), "text_in_image.regions")[0] for image in images]
        assert first(rows, "text_in_image.regions") == alone + alone[::-1]


def test_a_smaller_side_finds_less_small_text():
    image = saved(drawn("small words in a large picture", 20, (1600, 1200)), "PNG")
    found = [first(run(TextInImage(side=side), [image]), "text_in_image.boxes")[0] for side in (128, 512)]
    assert found == [0, 1]


def test_the_models_are_those_of_the_wheel_and_nothing_is_requested(monkeypatch):
    import rapidocr
    import requests

    from vlmdata.models.text_reader import TextReader

    def refuse(*args, **kwargs):
        raise AssertionError(f"a request: {args}")

    monkeypatch.setattr(requests.Session, "send", refuse)
    folder = Path(rapidocr.__file__).parent / "models"
    assert {path.parent for path in ocr_files("step").values()} == {folder}
    reader = TextReader(512, "step")
    assert reader.find(np.asarray(drawn()), read=True).lines == (WORDS,)
    assert set(reader.facts["weights"]) == {path.name for path in folder.glob("*.onnx")}


def test_finding_text_starts_no_threads():
    run(TextInImage(recognise=True), [saved(drawn(), "PNG")])
    before = len(os.listdir("/proc/self/task"))
    from vlmdata.models.text_reader import TextReader

    assert TextReader(512, "step").find(np.asarray(drawn()), read=True).lines == (WORDS,)
    assert len(os.listdir("/proc/self/task")) == before


def test_a_package_without_its_models_is_reported_in_one_line(monkeypatch, tmp_path):
    found = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    with pytest.raises(RecipeError, match=r"^text_in_image: .*must hold one model \*_det_\*\.onnx, not 0\. Install"):
        TextInImage().check()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert ocr_files("step") == {}, "the missing package itself is named by the extra"


def test_text_is_found_in_most_labelled_pictures_with_text_and_in_hardly_any_without():
    found = [run(TextInImage(), [real_data(path).read_bytes() for path in paths]) for paths in (WITH_TEXT, WITHOUT_TEXT)]
    boxes = [np.array(first(rows, "text_in_image.boxes")) for rows in found]
    assert [len(one) for one in boxes] == [21, 18]
    assert (boxes[0] > 0).sum() >= 17 and (boxes[1] > 0).sum() <= 2
    assert max(first(found[1], "text_in_image")) < 0.01
