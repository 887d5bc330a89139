"""Draw the curves of a training run as an SVG file, without a plotting library."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 320, 52, 190, 28, 36  # px; the legend is at the right
COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#718096")


def losses(log: Path) -> dict[str, list[tuple[float, float]]]:
    """Read the training loss and the held-out loss by step from a run's log.jsonl."""
    records = [json.loads(line) for line in log.read_text().splitlines()]
    kinds = {"training": "train", "held out": "held_out"}
    return {name: [(r["step"], r["loss"]) for r in records if r["kind"] == kind] for name, kind in kinds.items()}


def draw(path: Path, title: str, lines: Mapping[str, Points], levels: Mapping[str, float], *, top: float) -> None:
    """Write an SVG with named lines over the steps and named dashed levels. Values above `top` are cut off."""
    last = max(x for points in lines.values() for x, _ in points)
    bottom = min([y for points in lines.values() for _, y in points] + list(levels.values()))
    bottom -= 0.05 * (top - bottom)

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / last
        return across, TOP + (HEIGHT - TOP - BOTTOM) * (top - min(y, top)) / (top - bottom)

    parts = [_text(LEFT, 16, title, "#1a202c"), _text(LEFT, HEIGHT - 6, "steps", "#4a5568")]
    for share in (0, 0.25, 0.5, 0.75, 1):
        value = bottom + share * (top - bottom)
        (x, y), (end, _) = place(0, value), place(last, value)
        parts.append(f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{end:.1f}" y2="{y:.1f}" stroke="#e2e8f0"/>')
        parts.append(_text(6, y + 4, f"{value:.2f}", "#4a5568"))
        parts.append(_text(place(share * last, bottom)[0] - 10, HEIGHT - 20, f"{share * last:.0f}", "#4a5568"))
    shown = [*lines.items(), *((name, [(0.0, level), (last, level)]) for name, level in levels.items())]
    for number, (name, points) in enumerate(shown):
        colour = COLOURS[number % len(COLOURS)]
        dashes = ' stroke-dasharray="5 4"' if name in levels else ""
        path_of = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        parts.append(f'<polyline points="{path_of}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>')
        label = f"{name} {points[-1][1]:.3f}"
        parts.append(_text(WIDTH - RIGHT + 10, TOP + 14 + 18 * number, label, colour))
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    back = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    path.write_text("\n".join([svg, back, *parts, "</svg>\n"]))


def _text(x: float, y: float, text: str, colour: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}">{html.escape(text)}</text>'
