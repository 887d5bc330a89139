"""Documents are judged by their images and their whole text."""

from tests.rows import document, table
from vlmdata.steps.document_quality import DocumentQuality

GOOD = "The quick brown fox jumps over the lazy dog, and the dog sleeps again in the warm sun. It was a long day!"


def images(count: int) -> list[dict]:
    return [{"url": f"http://ex.com/{i}.jpg"} for i in range(count)]


def reasons(documents: list[dict], **parameters) -> list:
    return [row["reason"] for row in DocumentQuality(**parameters).run(table(documents)).to_pylist()]


def test_the_limits_of_the_number_of_images_are_inclusive():
    counts = [0, 1, 30, 31]
    assert reasons([document(GOOD, *images(count)) for count in counts]) == ["min_images", None, None, "max_images"]


def test_dropped_images_and_texts_do_not_count():
    lost = {**images(1)[0], "drop": "image_size", "reason": "min_side"}
    rows = [document(GOOD, lost), document(GOOD, lost, *images(1))]
    gone = document(GOOD, "short", *images(1))
    gone["texts"][0] = {"text": GOOD, "drop": "paragraph_quality"}
    assert reasons([*rows, gone]) == ["min_images", None, "min_words"]


def test_the_texts_of_a_document_are_judged_as_one():
    two = ["This is the first part of it: nine words.", "And this is the other one, of eight."]
    assert reasons([document(*two, *images(1))], min_words=17, max_words=17) == [None]
    assert reasons([document(*two, *images(1))], min_words=18) == ["min_words"]
    assert reasons([document(*["And so it was, as we had said before."] * 3, *images(1))]) == ["max_char_repetition"]
    assert reasons([document(GOOD.replace(",", "").replace(".", "").replace("!", ""), *images(1))]) == ["min_punctuation"]
