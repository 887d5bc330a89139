"""ms-swift's `load_dataset` reads messages.jsonl; its template's inputs have the texts, and its image loader the pixels."""

import hashlib
import importlib.metadata
import json
import os
import sys
import time
from pathlib import Path

from PIL import Image

REQUIREMENTS = ["ms-swift==4.6", "torchvision"]
EXPORTS = [
    {"data": "chats", "to": "messages", "options": {"form": "parts"}},
    {"data": "captions", "to": "messages", "options": {"form": "parts", "prompt": "Describe the image."}},
    {"data": "chats", "to": "messages", "options": {"form": "placeholders"}},
    {"data": "rare_chats", "to": "messages", "options": {"form": "parts"}},
]
ROLES = {"tool_call": "assistant"}  # names of ms-swift, where they differ from those in EXPECTED


def plain(text: str) -> str:
    """Return a text without white space and placeholders."""
    return "".join(text.replace("<image>", "").split())


def joined(roles: list[str], texts: list[str]) -> list[list[str]]:
    """Return [role, text] for each change of the speaker."""
    found: list[list[str]] = []
    for role, text in zip(roles, texts, strict=True):
        if found and found[-1][0] == role:
            found[-1][1] += plain(text)
        else:
            found.append([role, plain(text)])
    return found


def wanted(want: dict, line: dict) -> tuple[list[list[str]], int]:
    """Return the turns of EXPECTED, and the number of texts that ms-swift does not read: reasoning in a separate field."""
    if want["roles"] is None:
        return joined(["user", "assistant"], ["Describe the image.", *want["texts"]]), 0
    unread = [message["reasoning_content"] for message in line["messages"] if message.get("reasoning_content")]
    pairs = [pair for pair in zip(want["roles"], want["texts"], strict=True) if pair[1] not in unread]
    return joined([role for role, _ in pairs], [text for _, text in pairs]), len(unread)


def turns_of(row: dict) -> list[list[str]]:
    """Return the turns of a row as ms-swift's templates get them."""
    from swift.template.template_inputs import StdTemplateInputs

    inputs = StdTemplateInputs.from_dict(row)
    roles = [ROLES.get(message["role"], message["role"]) for message in inputs.messages]
    texts = [message["content"] for message in inputs.messages]
    if inputs.system:
        roles, texts = ["system", *roles], [inputs.system, *texts]
    texts = [text.replace("<think>", "").replace("</think>", "") for text in texts]
    return joined(roles, ["".join(calls(text)) for text in texts])


def calls(text: str) -> list[str]:
    """Return the calls of a message with a JSON list of calls, and of any other message its text."""
    try:
        found = json.loads(text)
    except ValueError:
        return [text]
    return [json.dumps(call, ensure_ascii=False) for call in found] if isinstance(found, list) else [text]


def check_images(row: dict, folder: Path, want: dict) -> None:
    from swift.template.vision_utils import load_image

    paths = [folder / image["path"] for image in row["images"] or []]
    if [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths] != want["images"]:
        sys.exit(f"sample {want['key']}: ms-swift has other images: {paths}")
    for image, path in zip(row["images"] or [], paths, strict=True):
        with Image.open(path) as original:
            stored = original.convert("RGB")  # ms-swift does not turn a photo upright
        if load_image(image["path"]).convert("RGB").tobytes() != stored.tobytes():
            sys.exit(f"sample {want['key']}: ms-swift decodes other pixels of {path}")


def main(folder: str, expected: str) -> None:
    start = time.monotonic()
    os.environ["ROOT_IMAGE_DIR"] = folder
    from swift.dataset import load_dataset

    rows, _ = load_dataset(f"{folder}/messages.jsonl", strict=True)
    wants = [json.loads(line) for line in Path(expected).read_text().splitlines()]
    lines = [json.loads(line) for line in Path(folder, "messages.jsonl").read_text().splitlines()]
    if len(rows) != len(wants):
        sys.exit(f"ms-swift keeps {len(rows)} of {len(wants)} samples")
    unread = 0
    for row, want, line in zip(rows, wants, lines, strict=True):
        turns, count = wanted(want, line)
        unread += count
        if turns_of(row) != turns:
            sys.exit(f"sample {want['key']}: ms-swift reads {turns_of(row)}, expected {turns}")
        check_images(row, Path(folder), want)
    result = {"samples": len(rows), "images": sum(len(want["images"]) for want in wants), "seconds": time.monotonic() - start}
    note = {"note": f"reasoning of {unread} sample not read"} if unread else {}
    print(json.dumps({**result, "version": importlib.metadata.version("ms-swift"), **note}))


if __name__ == "__main__":
    main(*sys.argv[1:3])
