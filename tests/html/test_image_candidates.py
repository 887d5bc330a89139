"""The best of the many addresses of an image is chosen."""

import pytest

from vlmdata.html.image_candidates import Candidate, addresses, is_placeholder, is_preview, parse_srcset


def test_a_srcset_is_parsed_as_the_standard_defines():
    text = "a.jpg 1x, b,c.jpg 2x,\nhttps://e.org/w_200,h_100/d.jpg 400w 300h, e.jpg, f.jpg 1.5x, bad.jpg 2y, ,"
    assert parse_srcset(text) == [
        Candidate("a.jpg", 0, 1),
        Candidate("b,c.jpg", 0, 2),
        Candidate("https://e.org/w_200,h_100/d.jpg", 400, 1),
        Candidate("e.jpg", 0, 1),
        Candidate("f.jpg", 0, 1.5),
    ]
    assert parse_srcset("a.jpg calc(1, 2)w, b.jpg") == [Candidate("b.jpg", 0, 1)]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"src": "a.jpg"}, ["a.jpg"]),
        ({"src": "s.jpg", "srcset": "m.jpg 800w, l.jpg 2000w, xl.jpg 9000w"}, ["l.jpg", "m.jpg", "xl.jpg", "s.jpg"]),
        ({"src": "s.jpg", "srcset": "b.jpg 2x, c.jpg 3x"}, ["c.jpg", "b.jpg", "s.jpg"]),
        ({"src": "t.jpg", "data-src": "big.jpg"}, ["big.jpg", "t.jpg"]),
        ({"src": "blank.gif", "data-lazy-src": "real.jpg"}, ["real.jpg"]),
        ({"src": "data:image/gif;base64,R0lGOD", "data-srcset": "r.jpg 640w"}, ["r.jpg"]),
        ({"src": "/img/1x1.gif"}, []),
        ({"src": "//:0"}, []),
        ({"src": " http://:0", "data-photo": "a.jpg"}, ["a.jpg"]),
        ({"src": "a.jpg", "data-src": "true"}, ["a.jpg"]),
        (
            {"src": "a.jpg?w=20&blur=9", "srcset": "a.jpg?w=20 1x, a.jpg?w=40 2x", "data-src": "a.jpg"},
            ["a.jpg", "a.jpg?w=40", "a.jpg?w=20", "a.jpg?w=20&blur=9"],
        ),
        ({"src": "a.jpg", "data-lqip": "a-low.jpg"}, ["a.jpg"]),
        ({"src": "1px.png", "data-hi-def": "a.jpg", "data-preview": "p.jpg"}, ["a.jpg"]),
        ({"data-wide-srcset": "r.jpg 640w"}, ["r.jpg"]),
        ({"alt": "nothing"}, []),
    ],
)
def test_the_best_address_comes_first(attributes, expected):
    assert addresses(attributes) == expected


def test_the_sources_of_a_picture_count_and_unreadable_types_do_not():
    sources = [{"type": "image/x-new", "srcset": "n.new 4000w"}, {"type": "image/webp", "srcset": "w.webp 1200w"}]
    assert addresses({"src": "s.jpg"}, sources) == ["w.webp", "s.jpg"]


def test_placeholders_are_recognized():
    shown_until = ["blank.gif", "https://e.org/x/spacer.png?v=2", "about:blank", "", "data:image/svg+xml,<svg/>", "loading.gif"]
    shown_until += ["//:0", "http://:0", "https://"]
    assert all(map(is_placeholder, shown_until))
    assert not any(map(is_placeholder, ["blanket.jpg", "photo.gif", "space.png", "data:image/png;base64," + "A" * 300]))


def test_previews_are_recognized():
    small = [
        "a.jpg?q=20",
        "a.jpg?w=20",
        "/max/60/a.png",
        "a-20x13.jpg",
        "/w_30,e_blur/a.jpg",
        "/resize:fit:60/a.jpg",
        "/s72-c/a.jpg",
        "lqip/a.jpg",
    ]
    assert all(map(is_preview, small))
    assert not any(
        map(is_preview, ["a.jpg?q=80", "a.jpg?w=800", "/max/3788/a.png", "a-300x200.jpg", "/s1600/a.jpg", "slow.jpg", "a.jpg"])
    )
