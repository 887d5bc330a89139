"""Names of boilerplate drop an element only if it holds no content."""

import pytest

from tests.html.pages import texts_of
from vlmdata.html.names import KNOWN, classify_names

PROSE = [
    "The ferry leaves the stone harbour at six each morning and carries mostly flour.",
    "Old Marten keeps a ledger of every crossing since his mother held the tiller.",
]
FIGURE = "<img src=a.jpg><figcaption>The green boat.</figcaption>"
SHOWN = [PROSE[0], None, f"The green boat.\n\n{PROSE[1]}"]
ALONE = [PROSE[0], None, PROSE[1]]
BUTTONS = "<ul><li><a href=/f>Share on Facebook</a><li><a href=/t>Send to a friend</a></ul>"


def texts(body: str) -> list[str | None]:
    return texts_of(f"<article><p>{PROSE[0]}</p>{body}<p>{PROSE[1]}</p></article>")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (f"<figure class='image fig--has-shares'>{FIGURE}</figure>", SHOWN),
        (f"<figure class=share>{FIGURE}</figure>", SHOWN),
        (f"<figure id=comments class=promo>{FIGURE}</figure>", SHOWN),
        (f"<div class='image shares'>{FIGURE}</div>", SHOWN),
        (f"<div class=share><figure>{FIGURE}</figure>{BUTTONS}</div>", SHOWN),
        (f"<aside><figure>{FIGURE}</figure></aside>", SHOWN),
        ("<figure class=share><a href=/z><img src=a.jpg></a></figure>", ALONE),
        ("<figure class=share><img src=a.jpg><figcaption><a href=/p>By the photographer</a></figcaption></figure>", ALONE),
        ("<div class=share-wrap><img src=a.jpg></div>", ALONE),
        ("<p class=banner><img src=a.jpg></p>", ALONE),
    ],
)
def test_a_figure_is_kept_under_every_name(body: str, expected: list[str | None]):
    assert texts(body) == expected


@pytest.mark.parametrize(
    "body",
    [
        "<div class=share><a href=/f><img src=f.png width=24></a><a href=/t><img src=t.png width=24></a></div>",
        "<figure class=share><a href=/f><img src=f.png width=24 height=24></a></figure>",
        f"<div class=share-buttons>{BUTTONS}</div>",
        "<div class=promo><a href=/s><img src=s.jpg></a></div>",
        "<div class=related><a href=/s><figure><img src=s.jpg><figcaption>Another story</figcaption></figure></a></div>",
        "<div class=newsletter><p>Sign up for our newsletter, and get the best stories of each day.</p></div>",
        "<p class=share><a href=/f>Share this with all of your friends on the lake</a></p>",
    ],
)
def test_buttons_and_teasers_are_dropped(body: str):
    assert texts(body) == ["\n\n".join(PROSE)]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            "<p class=share>The captain says that the boat was always green.</p>",
            "The captain says that the boat was always green.",
        ),
        ("<blockquote class=comment>The captain says that it was green.</blockquote>", "The captain says that it was green."),
        ("<h2 class=banner>The harbour</h2>", "The harbour"),
        ("<table class=tags><tr><td>Length<td>12 m<tr><td>Mast<td>9 m</table>", "Length | 12 m\nMast | 9 m"),
        ("<div class='text with-comments no-sidebar'>It was always green.</div>", "It was always green."),
    ],
)
def test_prose_between_prose_is_kept_under_every_name(body: str, text: str):
    assert texts(body) == ["\n\n".join([PROSE[0], text, PROSE[1]])]


@pytest.mark.parametrize("name", ["comments", "kommentare", "commentaires", "comentarios", "reacties", "related", "cookie"])
def test_comments_are_dropped_even_if_they_are_most_of_the_prose(name: str):
    story = "".join(f"<p>{i}. {text}</p>" for i in range(3) for text in PROSE)
    comments = "".join(f"<p>{i}: {text}</p>" for i in range(8) for text in PROSE)
    page = f"<div><div>{story}</div><div class={name}-box>{comments}</div></div>"
    assert texts_of(page) == ["\n\n".join(f"{i}. {text}" for i in range(3) for text in PROSE)]


def test_the_subjects_of_a_post_have_no_meaning():
    post = "post-7 type-post status-publish tag-newsletter category-comments"
    assert classify_names((post, None, None, None)) == (0, True, False)
    assert classify_names(("tag-newsletter", None, None, None))[0] == 2
    assert classify_names(("comments", None, None, None))[0] == 3


@pytest.mark.parametrize("name", ["entry-meta", "paywall", "author-profile", "disclosure", "factbox", "nav-previous"])
def test_a_boilerplate_box_inside_the_text_is_dropped(name: str):
    assert texts(f"<div class={name}><div>You need an account to see it.</div></div>") == ["\n\n".join(PROSE)]


def test_very_long_names_are_not_cached():
    for i in range(50):
        assert classify_names((f"sidebar {'x' * 1_000_000}-{i}", None, None, None)) == (2, False, False)
    assert sum(len(name or "") for kept in KNOWN for name in kept) < 2**15 * 1_000
