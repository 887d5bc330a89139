r"""Score a text against the true one as Zyte's (Scrapinghub's) article extraction benchmark does.

Words are matches of \w+. The shared four-word sequences give the precision and recall of a page, which are averaged over the
pages; F1 is computed from the two averages. Source: the benchmark's README and white paper, 2019.
"""

import re
from collections import Counter

_WORD = re.compile(r"\w+")


def shingles(text: str, size: int = 4) -> Counter:
    """Count the four-word sequences of a text. A text of fewer words is one sequence."""
    words = _WORD.findall(text)
    return Counter(tuple(words[i : i + size]) for i in range(max(1, len(words) - size + 1)) if words)


def precision_and_recall(pairs: list[tuple[str, str]]) -> tuple[float, float, float]:
    """Return precision, recall and F1 of (true, found) texts."""
    precisions, recalls = [], []
    for true, found in pairs:
        a, b = shingles(true), shingles(found)
        common = sum((a & b).values())
        if b:
            precisions.append(common / b.total())
        if a:
            recalls.append(common / a.total())
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return precision, recall, 2 * precision * recall / (precision + recall)
