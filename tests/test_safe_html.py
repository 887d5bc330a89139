"""The report's own escaping equals that of its template."""

import jinja2
import markupsafe

from vlmdata.report.safe_html import SafeHtml, escape


def test_text_is_escaped_as_the_template_escapes_it() -> None:
    text = "a & b < c > d \" e ' f &amp; ü"
    assert escape(text) == str(markupsafe.escape(text))


def test_the_template_escapes_text_but_not_safe_html() -> None:
    template = jinja2.Environment(autoescape=True).from_string("{{ safe }} {{ text }}")
    assert template.render(safe=SafeHtml("<b>x</b>"), text="<b>") == "<b>x</b> &lt;b&gt;"
