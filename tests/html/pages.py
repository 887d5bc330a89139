"""Build pages for tests from a body, and read them."""

from vlmdata.html.document import PageDocument, extract

SITE = "https://e.org/"
FERRY = [
    "The ferry leaves the stone harbour at six each morning and carries flour, nails and letters over the lake.",
    "Old Marten keeps a ledger of every crossing, and it shows that the winters were once colder than today.",
    "Nobody knows who painted the hull green, though three families of the village claim that it was theirs.",
    "When the fog is thick, the bell of the island rings twice a minute, and all the dogs of the village answer.",
]


def read(body: str) -> PageDocument:
    """Return the document of a page at SITE with this body."""
    return extract(f"<html><body>{body}</body></html>".encode(), SITE)


def texts_of(body: str) -> list[str | None]:
    """Return the texts of a page with this body, with None for each image."""
    return read(body).texts
