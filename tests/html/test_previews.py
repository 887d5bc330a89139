"""A preview and its full image become one image, the full one; two different images stay two."""

import pytest

from tests.html.pages import read

INLINE = "data:image/jpeg;base64," + "A" * 800
BLANK = "data:image/gif;base64,R0lGODlhAQABAAAAACw="
NEXT = "/_next/image?url=%2F{}.jpg&w={}&q=75"


def shown(body: str) -> list[str]:
    document = read(f"<p>Some words.</p>{body}<p>More words.</p>")
    return [image.url.removeprefix("https://e.org") for image in document.images if image]


@pytest.mark.parametrize(
    "body",
    [
        "<figure><img src=/max/60/a.jpg?q=20><img class=t width=9 height=9><noscript><img src=/a.jpg></noscript></figure>",
        f"<div><img src='{INLINE}'></div>\n<div><noscript><img src=/a.jpg></noscript></div>",
        f"<figure><div><img src='{INLINE}'></div><div><noscript><img src=/a.jpg></noscript></div></figure>",
        f"<div><img src='{INLINE}'><picture><img src=/a.jpg></picture><noscript><img src=/a.jpg></noscript></div>",
        f"<img src='{INLINE}' data-src=/a.jpg>",
        f"<img src='{BLANK}'><noscript><picture><source srcset=/a.jpg><img src=/a.jpg></picture></noscript>",
        "<noscript><img src=/a.jpg></noscript><img src=/a-20x10.jpg>",
        "<img src=/lqip/b7.jpg><noscript><img src=/a.jpg></noscript>",
        "<img src=/a-300x200.jpg><noscript><img src=/a.jpg></noscript>",
        "<div><img src=/a.jpg?w=20&blur=5><img src=/a.jpg></div>",
    ],
)
def test_the_full_image_is_kept_once(body: str):
    assert shown(body if "<figure>" in body else f"<div>{body}</div>") == ["/a.jpg"]


@pytest.mark.parametrize(
    ("body", "images"),
    [
        ("<img src=/1/thumb.jpg><img src=/2/thumb.jpg>", ["/1/thumb.jpg", "/2/thumb.jpg"]),
        ("<img src=/a.jpg><noscript><img src=/b.jpg></noscript>", ["/a.jpg", "/b.jpg"]),
        ("<img src=/a.jpg?w=20>words<noscript><img src=/b.jpg></noscript>", ["/a.jpg?w=20", "/b.jpg"]),
        ("<img src=/icon-16x16.png><img src=/b.jpg>", ["/icon-16x16.png", "/b.jpg"]),
        ("<img src='/i.php?id=1&w=50'><img src='/i.php?id=2&w=500'>", ["/i.php?id=1&w=50", "/i.php?id=2&w=500"]),
        (
            f"<img src='{NEXT.format('a', 16)}'><img src='{NEXT.format('b', 900)}'>",
            [NEXT.format("a", 16), NEXT.format("b", 900)],
        ),
        (f"<img src='{NEXT.format('a', 16)}'><img src='{NEXT.format('a', 900)}'>", [NEXT.format("a", 900)]),
        (
            "".join(f"<img src='{INLINE}'><noscript><img src=/{i}.jpg></noscript>" for i in (1, 2)),
            ["/1.jpg", "/2.jpg"],
        ),
    ],
)
def test_two_images_stay_two(body: str, images: list[str]):
    assert shown(f"<div>{body}</div>") == images


def test_the_full_image_takes_missing_attributes_from_the_preview():
    lazy = "<img src=/a.jpg?q=20 alt='A boat' width=900 height=500><noscript><img src=/a.jpg></noscript>"
    document = read(f"<figure>{lazy}<figcaption>On a lake</figcaption></figure>")
    (image,) = (image for image in document.images if image)
    assert (image.url, image.alt, image.caption, image.others) == (
        "https://e.org/a.jpg",
        "A boat",
        "On a lake",
        ("https://e.org/a.jpg?q=20",),
    )
    assert (image.rendered_width, image.rendered_height) == (900, 500)
