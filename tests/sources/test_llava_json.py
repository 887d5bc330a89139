import json

import pytest

from tests.fixtures import fixture
from tests.real_data import real_data
from tests.sources.pictures import picture
from tests.sources.reading import read_all
from vlmdata.sources.llava_json import LlavaJson


def record_of(*turns: str, image: object = None, **more: object) -> dict:
    """Return a record whose turns alternate between human and gpt."""
    values = [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(turns)]
    return {"conversations": values, **({"image": image} if image is not None else {}), **more}


def read(tmp_path, *entries: object, **parameters: object) -> list[dict]:
    (tmp_path / "1.png").write_bytes(picture())
    (tmp_path / "2.png").write_bytes(picture(9))
    (tmp_path / "list.json").write_text(json.dumps(list(entries)))
    return read_all(LlavaJson(path=str(tmp_path / "list.json"), **parameters)).to_pylist()


def shown(row: dict) -> list[tuple[str, object]]:
    """Return (role, width of the image or text) of each position."""
    return [(r, i["width"] if i else t["text"]) for r, i, t in zip(row["roles"], row["images"], row["texts"], strict=True)]


def test_an_image_takes_the_position_of_its_placeholder(tmp_path):
    record = record_of("<image>\nWhat is it?", "A square.", "And <image> this?", "Another.", image=["1.png", "2.png"], id="x")
    (row,) = read(tmp_path, record)
    assert shown(row) == [
        ("user", 8),
        ("user", "What is it?"),
        ("assistant", "A square."),
        ("user", "And"),
        ("user", 9),
        ("user", "this?"),
        ("assistant", "Another."),
    ]
    assert (row["drop"], json.loads(row["extra"])) == (None, {"id": "x"})


def test_a_single_image_without_placeholder_comes_first_and_text_may_have_none(tmp_path):
    one, none = read(tmp_path, record_of("What?", "It.", image="1.png"), record_of("Hello", "Hi"))
    assert shown(one) == [("user", 8), ("user", "What?"), ("assistant", "It.")]
    assert (shown(none), none["drop"]) == ([("user", "Hello"), ("assistant", "Hi")], None)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (record_of("<image><image> both?", "no", image="1.png"), "more_placeholders_than_images"),
        (record_of("<image>", "no", image=["1.png", "2.png"]), "more_images_than_placeholders"),
        (record_of("<image> what?", "that", image="lost.png"), "no_file"),
        (record_of("<image> what?", "that", image="../../etc/passwd"), "outside_folder"),
        (record_of("<image> what?", "that", image="list.json"), "not_an_image"),
        (record_of("<image> alone?", image="1.png"), "no_assistant_turn"),
        ({"conversations": [{"from": "judge", "value": "x"}]}, "unknown_role"),
        ({"conversations": [{"from": "human", "value": None}]}, "no_text"),
        ({"conversations": []}, "no_turns"),
        ({"image": "1.png"}, "no_turns"),
        (["no object"], "bad_record"),
    ],
)
def test_an_unusable_record_is_dropped_with_the_reason(tmp_path, entry, reason):
    rows = read(tmp_path, record_of("Hello", "Hi"), entry)
    assert [row["reason"] for row in rows] == [None, reason]


def test_remote_images_keep_their_addresses(tmp_path):
    (row,) = read(tmp_path, record_of("<image> what?", "that", image="https://a.org/1.png"))
    assert (row["images"][0]["url"], row["drop"]) == ("https://a.org/1.png", None)


def test_conversations_about_one_image_are_joined_in_one_row(tmp_path):
    a, b, c = (record_of(f"{mark}{n}?", f"{n}!", image="1.png") for n, mark in enumerate(["<image>\n", "", "\n<image>"]))
    other = record_of("<image> other?", "yes", image="2.png")
    first, second = read(tmp_path, a, other, b, c, joined=True)
    assert shown(first) == [("user", 8), *((("user", "assistant")[k], f"{n}{'?!'[k]}") for n in range(3) for k in range(2))]
    assert shown(second)[0] == ("user", 9)
    assert len(read(tmp_path, a, other, b, c)) == 4


@pytest.mark.parametrize(
    ("find", "name", "question"),
    [
        (fixture, "llava_demo", "Is there a tower with four blocks?"),
        (real_data, "qwen_finetune_demo", "Is the value of Favorable 38 in 2015?"),
    ],
)
def test_the_demo_of_qwen_and_a_similar_list_are_read(find, name, question):
    folder = find(f"D_instruction/{name}")
    rows = read_all(LlavaJson(path=str(folder / "demo/single_images.json"), images=str(folder))).to_pylist()
    assert [row["drop"] for row in rows] == [None] * len(rows)
    assert shown(rows[0])[0] == ("user", question) and shown(rows[0])[2] == ("assistant", "Yes")
    assert shown(rows[0])[1][1] > 100
    joined = read_all(LlavaJson(path=str(folder / "demo/single_images.json"), images=str(folder), joined=True)).to_pylist()
    assert len(joined) == len(
        {row["images"][1]["blob"] for row in rows if row["images"][1]}
        | {r["images"][0]["blob"] for r in rows if r["images"][0]}
    )
