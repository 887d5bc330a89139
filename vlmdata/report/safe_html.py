"""HTML that the template of the report does not escape again."""

from __future__ import annotations


class SafeHtml(str):
    """A string that is safe as HTML. jinja2 recognises it by the method `__html__`."""

    def __html__(self) -> str:
        return str(self)


def escape(text: str) -> str:
    """Return a text with the characters escaped that have a meaning in HTML, as jinja2 escapes them."""
    for char, escaped in (("&", "&amp;"), (">", "&gt;"), ("<", "&lt;"), ("'", "&#39;"), ('"', "&#34;")):
        text = text.replace(char, escaped)
    return text
