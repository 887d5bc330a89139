"""Linked cards of a picture, a name and a sentence are content if they hold the page's text, else teasers."""

import pytest

from tests.html.pages import SITE, read

SENTENCE = "Workshop {} mends clocks, lamps and wireless sets for anyone who brings them in before dark."
CLOSED = "This workshop carved wooden moulds for butter and gingerbread, which many kitchens here still use."
STORY = "Paragraph {} says at some length what happened to the old workshop by the river in the long winter of that year."
MARKUP = {
    "div": "<div class=card><a href=/{0}><img src=/{0}.png><h3>Workshop {0}</h3><p>{1}</p></a></div>",
    "a": "<a class=card href=/{0}><img src=/{0}.png><h3>Workshop {0}</h3><p>{1}</p></a>",
    "li": "<li><a href=/{0}><img src=/{0}.png><span>Workshop {0}</span><br><span>{1}</span></a></li>",
    "article": "<article class=teaser><a href=/{0}><h3>Workshop {0}</h3><p>{1}</p><img src=/{0}.png></a></article>",
    "figure": "<a href=/{0}><figure><img src=/{0}.png><figcaption>Workshop {0}. {1}</figcaption></figure></a>",
    "td": "<td><a href=/{0}><img src=/{0}.png><h3>Workshop {0}</h3><p>{1}</p></a></td>",
    "three links": "<div><a href=/{0}><img src=/{0}.png></a><h3><a href=/{0}>Workshop {0}</a></h3><a href=/{0}>{1}</a></div>",
    "one link": "<div><img src=/{0}.png><h3><a href=/{0}>Workshop {0}</a></h3><p>{1}</p></div>",
    "button": "<button class=card><img src=/{0}.png><h3>Workshop {0}</h3><p>{1}</p></button>",
    "with dates": "<div><a href=/{0}><img src=/{0}.png><h3>Workshop {0}</h3><p>{1}</p></a><i>3 May 2019</i></div>",
}
AROUND = {"li": "<ul>{}</ul>", "td": "<table><tr>{}</table>"}


def grid(markup: str, count: int) -> str:
    cards = "".join(MARKUP[markup].format(i, SENTENCE.format(i)) for i in range(count))
    return AROUND.get(markup, "<div class=grid>{}</div>").format(cards)


def found(body: str) -> tuple[list[str], str]:
    document = read(body)
    images = [image.url.removeprefix(SITE) for image in document.images if image]
    return images, "\n".join(text for text in document.texts if text)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("markup", MARKUP)
def test_cards_that_hold_the_text_of_a_page_are_kept_with_their_pictures(markup: str, before: bool):
    closed = "<h2>Closed</h2>" + "".join(f"<h3>Closed {i}</h3><p>{CLOSED}</p>" for i in range(12))
    cards = grid(markup, 6)
    images, text = found(f"<main><h1>Workshops</h1>{cards + closed if before else closed + cards}</main>")
    assert images == [f"{i}.png" for i in range(6)]
    assert [SENTENCE.format(i) in text for i in range(6)] == [True] * 6 and text.count(CLOSED) == 12


@pytest.mark.parametrize("page", ["<main>{0}</main>{1}", "{1}<main>{0}</main>", "<main>{0}<h2>More</h2>{1}</main>"])
@pytest.mark.parametrize("markup", MARKUP)
def test_teasers_beside_an_article_are_dropped(markup: str, page: str):
    story = [STORY.format(i) for i in range(6)]
    images, text = found(page.format("<h1>A title</h1>" + "".join(f"<p>{one}</p>" for one in story), grid(markup, 4)))
    assert images == [] and text.split("\n\n")[1:7] == story and "mends clocks" not in text


@pytest.mark.parametrize("names", ["related-card teaser", "recommended", "newsletter-card"])
def test_cards_named_boilerplate_are_content_if_they_hold_nearly_all_prose(names: str):
    cards = grid("div", 6).replace("class=card", f"class='{names}'")
    images, text = found(f"<main><h1>Workshops</h1>{cards}</main>")
    assert images == [f"{i}.png" for i in range(6)] and text.count("mends clocks") == 6
    images, text = found(f"<main><h1>Workshops</h1><p>{CLOSED}<p>{STORY}{cards}</main>")
    assert images == [] and "mends clocks" not in text


def test_buttons_and_their_icons_are_dropped():
    buttons = "<button><img src=/close.svg></button><button>Show the story of the old workshop by the river at once</button>"
    story = "".join(f"<p>{STORY.format(i)}</p>" for i in range(3))
    assert found(f"<main>{story}{buttons}{story}</main>")[1].split("\n\n") == [STORY.format(i) for i in range(3)] * 2
