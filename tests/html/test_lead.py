"""Title, pictures, summary and lists before the core are kept."""

import pytest

from tests.html.pages import FERRY, read

BODY = "".join(f"<p>{text}</p>" for text in FERRY)
SUMMARY = "A village lives by a boat that it paints <a href=/p>each spring</a>, and the boat lives by the village."
SAID = "A village lives by a boat that it paints each spring, and the boat lives by the village."
LINK = "<p><a href=/f>Send</a></p>"
ITEMS = "<ul><li>500 g flour<li>20 nails<li>Letters</ul>"
LISTED = "- 500 g flour\n- 20 nails\n- Letters"


def found(body: str) -> list[str | None]:
    document = read(body)
    return [
        text or (image and image.url.rpartition("/")[2]) for text, image in zip(document.texts, document.images, strict=True)
    ]


@pytest.mark.parametrize(
    ("lead", "kept"),
    [
        ("<img src=a.jpg><h1>The ferry</h1>", ["a.jpg", "The ferry"]),
        (
            "<figure><img src=a.jpg><figcaption>The boat.</figcaption></figure><h1>The ferry</h1>",
            ["a.jpg", "The boat.\n\nThe ferry"],
        ),
        ("<img src=i.png width=32><p class=share>Two buttons</p><h1>The ferry</h1>", ["The ferry"]),
        (f"<h1>The ferry</h1><p>{SUMMARY}</p>", [f"The ferry\n\n{SAID}"]),
        (f"<h1>The ferry</h1><p>{SUMMARY}</p><h2>Freight</h2>{ITEMS}", [f"The ferry\n\n{SAID}\n\nFreight\n\n{LISTED}"]),
    ],
)
def test_title_pictures_summary_and_lists_before_the_text_are_kept(lead: str, kept: list[str]):
    text = "\n\n".join(FERRY)
    expected = [f"{kept[-1]}\n\n{text}"] if not kept[-1].endswith(".jpg") else [*kept[-1:], text]
    assert found(f"<article><header>{lead}{LINK}</header><div>{BODY}</div></article>") == [*kept[:-1], *expected]


def test_a_heading_as_long_as_a_paragraph_is_kept_above_a_linked_picture():
    heading = " ".join(f"word{i}" for i in range(30))
    page = f"<article><h1>The ferry</h1><h2>{heading}</h2><a href=/b><img src=b.jpg></a>{LINK}{BODY}</article>"
    assert found(page) == [f"The ferry\n\n{heading}", "b.jpg", "\n\n".join(FERRY)]


@pytest.mark.parametrize("name", ["meta", "inset", "teaser"])
def test_a_captioned_picture_is_kept_inside_weak_boilerplate(name: str):
    figure = (
        f"<div class={name}><figure><div class={name}><img src=a.jpg></div><figcaption>The boat.</figcaption></figure></div>"
    )
    assert found(f"<article>{figure}{BODY}</article>") == ["a.jpg", "\n\n".join(["The boat.", *FERRY])]


def test_a_summary_named_teaser_is_kept():
    summary = f"{FERRY[0]} Daily."
    page = f"<article><div class=teaser-text>{summary}</div><div>{BODY}</div></article>"
    assert found(page) == ["\n\n".join([summary, *FERRY])]
