"""The elements counted before parsing are an upper bound of those that the parser builds."""

import random

import pytest
from selectolax.lexbor import LexborHTMLParser

from vlmdata.html.markup import read_markup
from vlmdata.html.names import word_set
from vlmdata.html.open_elements import Tree

PAIRS = word_set(
    "a applet b body button center div font form h1 h2 html i li math mi nobr noscript object option p ruby script select span "
    "style svg table td template textarea title ul x-y"
)
SOUP = [
    *(f"<{name}>" for name in sorted(PAIRS)),
    *(f"</{name}>" for name in sorted(PAIRS | {"br", "dd"})),
    *("<a href=x>", "<b id=1>", "<b id=2>", "<font size=1>", "<font size=2>", "<img src=a.jpg>", "<path/>"),
    *("<br>", "<dd>", "<dt>", "<tr>", "<rt>", "<body a=b>", "<p a='", "'>", '<p a=">', '">'),
    *("<!--", "-->", "--!>", "<!-->", "<![CDATA[", "]]>", "text"),
]


def shape(html: bytes) -> tuple[int, int]:
    """Return the depth of the tree below the body and its number of elements."""
    depth = elements = 0
    stack = [(LexborHTMLParser(html).body, 0)]
    while stack:
        node, level = stack.pop()
        while node is not None:
            if node.tag and node.tag[0] not in "-!":
                elements += 1
                depth = max(depth, level)
            if node.first_child is not None:
                stack.append((node.first_child, level + 1))
            node = node.next if level else None
    return depth, elements


@pytest.mark.parametrize("seed", range(300))
def test_a_tree_is_at_most_as_deep_and_as_large_as_counted(seed):
    chance = random.Random(seed)
    words = chance.sample(SOUP, chance.randint(2, 12))
    tree, pieces, deepest = Tree(), [], 0
    for tag in read_markup(("<body>" + "".join(chance.choices(words, k=400))).encode(), pieces):
        tree.add(*tag)
        deepest = max(deepest, len(tree.opened))
    depth, elements = shape(b"".join(pieces))
    assert depth <= 3 * deepest + 8  # open list items, cells and paragraphs are not counted
    assert elements <= 4 * tree.cost + 20  # elements that a table or an end tag implies are not counted
