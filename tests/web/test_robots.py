"""robots.txt is read as RFC 9309 says, compared with its examples and with a slow implementation."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.web.robots import MAX_BYTES, is_allowed, matches, parse_robots


def allowed(text: str, path: str, agent: str = "vlmdata") -> bool:
    return is_allowed(parse_robots(text.encode(), agent)[0], path)


def test_the_example_of_section_5_1_is_matched() -> None:
    text = """User-agent: *
Disallow: *.gif$
Disallow: /example/
Allow: /publications/

User-agent: foobot
Disallow:/
Allow:/example/page.html
Allow:/example/allowed.gif

User-agent: barbot
User-agent: bazbot
Disallow: /example/page.html

User-agent: quxbot

EOF"""
    paths = ["/", "/example/page.html", "/example/allowed.gif", "/publications/a", "/a.gif"]
    verdicts = {
        agent: [allowed(text, path, agent) for path in paths] for agent in ("vlmdata", "foobot", "BarBot", "bazbot", "quxbot")
    }
    assert verdicts == {
        "vlmdata": [True, False, False, True, False],
        "foobot": [False, True, True, False, False],
        "BarBot": [True, False, True, True, True],
        "bazbot": [True, False, True, True, True],
        "quxbot": [True, True, True, True, True],
    }


def test_the_longest_match_decides_section_5_2() -> None:
    text = "User-agent: foobot\nAllow: /example/page/\nDisallow: /example/page/disallowed.gif\n"
    assert allowed(text, "/example/page/a.gif", "foobot")
    assert not allowed(text, "/example/page/disallowed.gif", "foobot")


@pytest.mark.parametrize(
    ("rules", "path", "verdict"),
    [
        ("Disallow: /a\nAllow: /a", "/a", True),  # on a tie, the least restrictive
        ("Allow: /a\nDisallow: /a", "/a", True),
        ("Disallow:", "/a", True),
        ("Disallow: /", "/robots.txt", True),
        ("Disallow: /fish*.php", "/fishheads/catfish.php?id=1", False),
        ("Disallow: /fish*.php", "/fish/cat.asp", True),
        ("Disallow: /*.php$", "/a.php", False),
        ("Disallow: /*.php$", "/a.php?x", True),
        ("Disallow: /a/b?", "/a/b?c", False),
        ("Disallow: /a b", "/a%20b", False),
        ("Disallow: /ツ", "/%E3%83%84", False),
        ("Disallow: /%e3%83%84", "/%E3%83%84", False),
        ("Disallow: /%7Ejoe", "/~joe", False),
        ("Disallow: /~joe", "/%7Ejoe", False),
        ("Disallow: /a%2Fb", "/a/b", True),
        ("Disallow: /a%2fb", "/a%2Fb", False),
        ("Disallow: /a%2A", "/a*b", False),
        ("Disallow: /a%2A", "/ab", True),
        ("Disallow: /a$b", "/a$b", True),  # a $ that is not last is written %24 (2.2.3)
        ("Disallow: /a%24", "/a$", False),
        ("Disallow: /A", "/a", True),
        ("  DISALLOW :  /a  # why", "/a", False),
        ("Sitemap: http://a.example/s\nDisallow: /a", "/a", False),
        ("disallow /a", "/a", True),
    ],
)
def test_paths_are_matched_with_wildcards_and_escapes(rules: str, path: str, verdict: bool) -> None:
    assert allowed(f"User-agent: *\n{rules}", path) is verdict


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_any_line_end_and_a_byte_order_mark(end: str) -> None:
    assert not allowed("\ufeff" + end.join(["User-agent: *", "Disallow: /a", "Allow: /b"]), "/a")


def test_groups_of_one_agent_are_merged_and_star_is_ignored() -> None:
    text = "User-agent: vlmdata\nDisallow: /a\n\nUser-agent: *\nDisallow: /c\n\nUser-agent: VLMDATA/2.0\nDisallow: /b\n"
    assert [allowed(text, path) for path in ("/a", "/b", "/c")] == [False, False, True]


def test_a_group_without_paths_allows_all() -> None:
    assert allowed("User-agent: *\nDisallow: /\nUser-agent: vlmdata\nCrawl-delay: 5\n", "/a")


def test_rules_before_any_agent_and_other_pages_are_ignored() -> None:
    assert allowed("Disallow: /\n", "/a")
    assert allowed("<!DOCTYPE html><html><body>Disallow: everything</body></html>", "/a")
    assert is_allowed(parse_robots(bytes(range(256)) * 40, "vlmdata")[0], "/a")


def test_only_half_a_megabyte_is_read_without_a_cut_line() -> None:
    filler = "# " + "x" * 97 + "\n"
    text = "User-agent: *\nDisallow: /early\n" + filler * (MAX_BYTES // len(filler)) + "Disallow: /late\n"
    assert [allowed(text, path) for path in ("/early", "/late")] == [False, True]
    cut = "User-agent: *\n" + "#" * (MAX_BYTES - 26) + "\nDisallow: /abc\n"
    assert cut.encode()[:MAX_BYTES].endswith(b"Disallow: /")
    assert allowed(cut, "/x")


@pytest.mark.parametrize(
    ("value", "delay_s"), [("2", 2.0), ("0.5", 0.5), ("nan", 0.0), ("-1", 0.0), ("soon", 0.0), ("1e99", 3600.0)]
)
def test_crawl_delay_is_read(value: str, delay_s: float) -> None:
    assert parse_robots(f"User-agent: *\nCrawl-delay: {value}".encode(), "vlmdata")[1] == delay_s


def slow_match(pattern: str, path: str) -> bool:
    anchored = pattern.endswith("$")
    body = pattern[:-1] if anchored else pattern
    return re.match(".*".join(map(re.escape, body.split("*"))) + ("$" if anchored else ""), path) is not None


@given(st.text("ab/*$", max_size=8), st.text("ab/", max_size=10))
def test_patterns_match_as_a_regular_expression_does(pattern: str, path: str) -> None:
    assert matches(pattern, path) == slow_match(pattern, path)


@given(
    st.lists(st.tuples(st.booleans(), st.text("ab*$", max_size=4).map(lambda tail: f"/{tail}")), max_size=6),
    st.text("ab", max_size=6),
)
def test_the_verdict_is_that_of_the_longest_pattern(rules: list[tuple[bool, str]], tail: str) -> None:
    path = f"/{tail}"
    lengths = [(len(pattern), allow) for allow, pattern in rules if slow_match(pattern, path)]
    assert is_allowed(tuple(rules), path) == (max(lengths)[1] if lengths else True)


@given(st.binary(max_size=400))
def test_parsing_never_raises(body: bytes) -> None:
    rules, delay_s = parse_robots(b"User-agent: *\nDisallow: " + body, "vlmdata")
    assert isinstance(is_allowed(rules, "/a%zz?b"), bool) and delay_s >= 0


def test_a_hostile_pattern_is_fast() -> None:
    """An implementation that tries every position for every star would exceed the time limit of the suite."""
    rules, _ = parse_robots(("User-agent: *\nDisallow: /" + "*a" * 2_000 + "$\n").encode(), "vlmdata")
    assert is_allowed(rules, "/" + "a" * 1_999 + "b" * 4_000)
