"""Score texts as trafilatura's own evaluation does, by strings that they must and must not contain, over all pages together."""


def score_of_strings(texts: list[str], marks: list[dict[str, list[str]]]) -> tuple[float, float, float]:
    """Return precision, recall and F1 over all strings. A run of white space counts as one blank."""
    right = wrong = missing = 0
    for text, mark in zip(texts, marks, strict=True):
        flat = " ".join(text.split())
        found = [" ".join(one.split()) in flat for one in mark["with"]]
        right += sum(found)
        missing += len(found) - sum(found)
        wrong += sum(" ".join(one.split()) in flat for one in mark["without"])
    precision, recall = right / (right + wrong), right / (right + missing)
    return precision, recall, 2 * precision * recall / (precision + recall)
