"""X-Robots-Tag and the TDM Reservation Protocol are obeyed."""

import json

import pytest

from vlmdata.web.options import WebOptions
from vlmdata.web.optout import file_reservation, parse_tdmrep, tag_refusal, tdm_reservation


@pytest.mark.parametrize(
    ("tags", "refusal"),
    [
        (["noai"], "noai"),
        (["NoImageAI"], "noai"),
        (["nofollow, noml"], "noai"),
        (["noindex"], "noindex"),
        (["none"], "noindex"),
        (["noindex, noai"], "noai"),
        (["noindex", "noai"], "noai"),
        (["all"], None),
        (["index, follow, max-image-preview:large"], None),
        (["nofollow"], None),
        (["otherbot: noai"], None),
        (["otherbot: noindex, noai"], None),
        (["otherbot: nofollow, vlmdata: noai"], "noai"),
        (["VLMData: noindex"], "noindex"),
        (["*: noai"], "noai"),
        (["otherbot: noai", "noindex"], "noindex"),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, noai"], "noai"),
        (["max-snippet: 20, noai"], "noai"),
        (["noairplanes"], None),
        ([""], None),
        ([":noai"], "noai"),
    ],
)
def test_a_tag_applies_to_all_or_to_the_named_agent(tags: list[str], refusal: str | None) -> None:
    headers = [("content-type", "image/jpeg"), *(("x-robots-tag", tag) for tag in tags)]
    assert tag_refusal(headers, "vlmdata", WebOptions().opt_out) == refusal


def test_the_recipe_chooses_the_directives() -> None:
    assert tag_refusal([("x-robots-tag", "noindex, noai")], "vlmdata", ("noai",)) == "noai"
    assert tag_refusal([("x-robots-tag", "noindex")], "vlmdata", ("noai",)) is None


@pytest.mark.parametrize(("value", "reserved"), [("1", True), (" 1 ", True), ("0", False), ("yes", None), ("", None)])
def test_the_header_tdm_reservation_is_read(value: str, reserved: bool | None) -> None:
    assert tdm_reservation([("tdm-reservation", value)]) is reserved


def test_the_first_match_in_a_tdmrep_json_decides() -> None:
    body = json.dumps(
        [
            {"location": "/a/free/*.jpg", "tdm-reservation": 0},
            {"location": "/a/", "tdm-reservation": 1, "tdm-policy": "https://a.example/policy"},
            {"location": "/exactly$", "tdm-reservation": "1"},
            {"location": "/ü", "tdm-reservation": 1},
        ]
    )
    rules = parse_tdmrep(body.encode())
    paths = ["/a/free/x.jpg", "/a/free/x.png", "/a/", "/b", "/exactly", "/exactly/not", "/%C3%BC"]
    assert [file_reservation(rules, path) for path in paths] == [False, True, True, None, True, None, True]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[",
        b"null",
        b"[1, null, []]",
        b'[{"location": 1, "tdm-reservation": 1}]',
        b'[{"location": "/"}]',
        b'[{"location": "/", "tdm-reservation": 2}]',
        b'[{"location": "/", "tdm-reservation": []}]',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_an_invalid_tdmrep_json_reserves_nothing(body: bytes) -> None:
    assert parse_tdmrep(body) == ()
