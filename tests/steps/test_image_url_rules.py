"""Images of pages are judged by their addresses before they are fetched."""

from tests.rows import document, table
from vlmdata.steps.image_url_rules import ImageUrlRules


def reasons(*images: dict, **parameters) -> list:
    (row,) = ImageUrlRules(**parameters).run(table([document("text", *images)])).to_pylist()
    return [image["reason"] for image in row["images"] if image]


def test_banned_words_are_found_anywhere_in_the_address():
    urls = ["http://ex.com/a.jpg", "http://LOGOS.com/a.jpg", "http://ex.com/my-Icon.png", "data:image/logo"]
    assert reasons(*({"url": url} for url in urls)) == [None, "banned_logo", "banned_icon", None]
    assert reasons({"url": "http://ex.com/logo.png"}, banned=["cat"]) == [None]


def test_inline_images_are_dropped_by_their_own_rule_and_not_by_banned_words():
    images = [{"url": url} for url in ("data:image/png;base64,ab.gifab", "data:text/html,a", "http://e/?data:image/a")]
    assert reasons(*images, banned=[".gif", "data:image"]) == ["banned_data:image", None, "banned_data:image"]
    assert reasons(*images, banned=[".gif"]) == [None] * 3


def test_the_limits_of_the_displayed_size_are_inclusive():
    sizes = [(None, None), (150, 20_000), (149, 300), (300, 149), (20_001, 200), (0, None)]
    images = [{"url": f"http://e/{i}", "rendered_width": w, "rendered_height": h} for i, (w, h) in enumerate(sizes)]
    assert reasons(*images) == [
        None,
        None,
        "min_rendered_width",
        "min_rendered_height",
        "max_rendered_width",
        "min_rendered_width",
    ]


def test_an_address_counts_once_in_a_document():
    images = [{"url": url} for url in ("http://e/a", "http://e/b", "http://e/a", "data:image/png", "data:image/png")]
    assert reasons(*images) == [None, None, "repeated_in_document", None, None]
    assert reasons(*images, keep_repeats=True) == [None] * 5
    rows = ImageUrlRules().run(table([document("t", {"url": "http://e/a"}), document("t", {"url": "http://e/a"})]))
    assert rows["drop"].to_pylist() == [None, None]
