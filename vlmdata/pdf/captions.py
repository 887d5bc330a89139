"""How the caption of a figure or table begins."""

from __future__ import annotations

import re

CAPTION = re.compile(
    r"(fig(ure|\.)?|table|tab\.|scheme|plate|chart|abb(ildung|\.)|tabelle|figura|tabla|tableau|图|圖|図|表)\s*[0-9IVXS]", re.I
)
