import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.rows import captions, document, table
from vlmdata.step import RecipeError
from vlmdata.steps.decontaminate_text import DecontaminateText

QUESTION = "What is the man in the red jacket holding in his left hand while crossing the street"
SHORT = "a cat on a mat near the window"  # eight words


def references(tmp_path: Path) -> str:
    (tmp_path / "vqa.jsonl").write_text(json.dumps({"id": "yes", "q": [{"question": QUESTION, "answer": "a phone"}]}) + "\n")
    body = SHORT.encode()
    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        member = tarfile.TarInfo("a.txt")
        member.size = len(body)
        tar.addfile(member, io.BytesIO(body))
    return str(tmp_path)


def test_thirteen_shared_words_in_a_row_drop_a_text_and_twelve_do_not(tmp_path: Path) -> None:
    words = QUESTION.split()
    step = DecontaminateText(references=(references(tmp_path),))
    thirteen, twelve = " ".join(words[2:15]).upper(), " ".join(words[2:14])
    rows = captions([f"Q: {thirteen}?", f"Q: {twelve}", f"see: {SHORT}!", "a cat on a mat near the", "yes"])
    found = step.run(rows)
    assert found["reason"].to_pylist() == ["in_evaluation", None, "in_evaluation", None, None]
    assert found["value"].to_pylist()[0] == round(13 / 14, 6)


def test_a_minimum_share_of_the_text_can_be_required(tmp_path: Path) -> None:
    long = " ".join([QUESTION] + [f"w{i}" for i in range(83)])
    rows = captions([long, QUESTION])
    step = DecontaminateText(references=(references(tmp_path),), share=0.2)
    assert step.run(rows)["drop"].to_pylist() == [None, "decontaminate_text"]


def test_a_contaminated_alternative_drops_its_text(tmp_path: Path) -> None:
    row = document({"url": "u"})
    rows = table([{"images": [*row["images"], None], "texts": [None, {"text": "harmless", "alternatives": ["so", SHORT]}]}])
    assert DecontaminateText(references=(references(tmp_path),)).run(rows)["drop"].to_pylist() == ["decontaminate_text"]


def test_missing_references_and_invalid_json_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no"):
        DecontaminateText(references=(str(tmp_path / "none"),)).check()
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match=r"bad\.json is not valid JSON"):
        DecontaminateText(references=(str(tmp_path),)).run(captions(["a"]))


def test_an_evaluation_set_in_chinese_is_found(tmp_path: Path) -> None:
    (tmp_path / "vqa.txt").write_text("图片中穿红色外套的男人在过马路时左手拿着什么\n")
    rows = captions(["问：图片中穿红色外套的男人在过马路时左手拿着什么？", "图片中穿红色外套的男人"])
    found = DecontaminateText(references=(str(tmp_path),)).run(rows)
    assert found["reason"].to_pylist() == ["in_evaluation", None]
