"""Make rows for tests from a few plain values."""

import pyarrow as pa

from vlmdata.row import conform


def captions(texts: list[str | None], **image_fields: list) -> pa.Table:
    """Return caption pairs of one text and one image each. The image's fields are given as columns (`width=[640, 480]`)."""
    images = [{"url": f"http://example.org/{i}.jpg", **{k: v[i] for k, v in image_fields.items()}} for i in range(len(texts))]
    return conform(
        pa.table(
            {
                "key": [f"{i:024x}" for i in range(len(texts))],
                "images": pa.array([[image, None] for image in images]),
                "texts": pa.array([[None, {"text": text}] for text in texts], pa.list_(pa.struct({"text": pa.string()}))),
            }
        )
    )


def document(*parts: str | dict) -> dict:
    """Return one document as a row's values. Strings become texts, mappings become images."""
    return {
        "images": [part if isinstance(part, dict) else None for part in parts],
        "texts": [{"text": part} if isinstance(part, str) else None for part in parts],
    }


def table(documents: list[dict]) -> pa.Table:
    """Return rows from `document(...)` values, with numbered keys."""
    return conform(pa.Table.from_pylist([{"key": f"{i:024x}", **row} for i, row in enumerate(documents)]))
