"""Tars of others are read as they are if a JSON of turns, or of a caption, accompanies the images."""

import base64
import json

import pytest

from tests.sources.pictures import picture
from vlmdata_train.data.document import Document
from vlmdata_train.data.read_document import read_document

ONE, TWO = picture(8), picture(9)
DATA = "data:image/png;base64," + base64.b64encode(TWO).decode()
ROLES = ["user", "user", "assistant"]


def sample(facts: object, **members: object) -> dict:
    """Return a sample as the loader yields it. A member called jpg_1 is `1.jpg`."""
    named = {".".join(reversed(name.split("_"))): data for name, data in members.items()}
    return {"__key__": "a/0001", **named, "json": json.dumps(facts).encode()}


def llava(*values: str, **more: object) -> dict:
    return {"conversations": [{"from": ("human", "gpt")[n % 2], "value": value} for n, value in enumerate(values)], **more}


def chat(*contents: object, **more: object) -> dict:
    turns = [{"role": ("user", "assistant")[n % 2], "content": content} for n, content in enumerate(contents)]
    return {"messages": turns, **more}


@pytest.mark.parametrize(
    "facts",
    [
        llava("<image>\nWhat?", "A cat."),
        llava("What?", "A cat."),
        llava("<image>\nWhat?", "A cat.", image="coco/train/000000012.jpg"),
        llava("<image>\nWhat?", "A cat.", image="https://a.org/12.jpg?size=9"),
        llava("<image>\nWhat?", "A cat.", image=["0001.jpg"], id=7),
        chat("<image>What?", "A cat."),
        chat([{"type": "image"}, {"type": "text", "text": "What?"}], [{"type": "text", "text": "A cat."}]),
        chat([{"type": "image", "image": "0001.jpg"}, "What?"], "A cat."),
        chat([{"type": "image_url", "image_url": {"url": "file:///data/12.jpg"}}, "What?"], "A cat."),
        chat("<image>What?", "A cat.")["messages"],
        {"conversations": json.dumps(llava("<image>What?", "A cat.")["conversations"])},
        chat("<image>What?", "A cat.", caption="another", texts=["x"]),
    ],
)
def test_every_published_form_is_read_beside_one_image(facts):
    assert read_document(sample(facts, jpg=ONE)) == Document([ONE, "What?", "A cat."], ROLES)


@pytest.mark.parametrize("names", [("jpg_2", "jpg_10"), ("jpg", "jpg_1"), ("png_0", "webp_1"), ("jpg_image2", "png_image10")])
@pytest.mark.parametrize("order", [1, -1])
def test_placeholders_take_the_images_in_the_order_of_their_numbers(names, order):
    facts = llava("<image>\nThis or\n<image>?", "Both.")
    found = read_document(sample(facts, **dict([*zip(names, (ONE, TWO), strict=True)][::order])))
    assert found.positions == [ONE, "This or", TWO, "?", "Both."]


@pytest.mark.parametrize(
    "images",
    [["1.jpg", "0.jpg"], ["x/0001.1.jpg", "x/0001.0.jpg"], [DATA, "0.jpg"], [{"path": "1.jpg"}, {"url": "http://a.org/0.jpg"}]],
)
def test_an_image_in_the_json_is_a_member_name_or_inline_data(images):
    parts = [{"type": "image", "image": one} for one in images]
    members = {"jpg_0": ONE, "jpg_1": TWO}
    for facts in (llava("<image><image>Which?", "Both.", images=images), chat([*parts, "Which?"], "Both.")):
        assert read_document(sample(facts, **members)).positions == [TWO, ONE, "Which?", "Both."]


def test_paths_that_name_no_member_take_the_images_in_order():
    facts = llava("<image><image>Which?", "Both.", image=["coco/b.jpg", "coco/a.jpg"])
    assert read_document(sample(facts, jpg_0=ONE, jpg_1=TWO)).positions == [ONE, TWO, "Which?", "Both."]


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (llava("<image><image>Which?", "A cat."), "more_placeholders_than_images"),
        (llava("<image><image>Which?", "A cat.", image=["a.jpg", "b.jpg"]), "no_file"),
        (llava("<image>What?"), "no_assistant_turn"),
        (llava("<image>What?", " "), "empty_answer"),
        ({"messages": [{"role": "judge", "content": "x"}]}, "unknown_role"),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]}, "bad_tool_call"),
        (chat([{"type": "video", "video": "1.mp4"}], "A cat."), "unknown_part"),
        (chat([{"type": "image", "image": "data:image/png;base64,?"}], "A cat."), "bad_base64"),
        (chat([{"type": "image", "image": "data:image/png;base64,AAAA"}], "A cat."), "not_an_image"),
        (chat("What?", "A cat.", tools=["w"]), "bad_tools"),
    ],
)
def test_an_unusable_conversation_has_the_reason_that_sources_give(facts, reason):
    with pytest.raises(ValueError, match=f"^{reason}$"):
        read_document(sample(facts, jpg=ONE))


def test_images_that_no_turn_shows_are_refused():
    with pytest.raises(ValueError, match=r"^more_images_than_placeholders$"):
        read_document(sample(llava("<image>What?", "A cat."), jpg_0=ONE, jpg_1=TWO))
    with pytest.raises(ValueError, match=r"^no_file$"):
        read_document(sample(llava("<image>What?", "A cat.", image="a.jpg"), jpg_0=ONE, jpg_1=TWO))


def test_conversations_without_images_and_with_tools_are_read():
    call = {"type": "function", "function": {"name": "w", "arguments": "{}"}}
    answer = {"role": "assistant", "content": None, "reasoning_content": "I look.", "tool_calls": [call]}
    turns = [{"role": "user", "content": " Hi\n"}, answer, {"role": "tool", "content": "3"}]
    found = read_document(sample({"messages": turns, "tools": [{"name": "w"}]}))
    assert found == Document(
        [" Hi\n", "I look.", '{"name": "w", "arguments": {}}', "3"],
        ["user", "assistant", "assistant", "tool"],
        [None, {"kind": "reasoning"}, {"kind": "tool_call"}, {"begins": True}],
        [{"name": "w"}],
    )


@pytest.mark.parametrize(
    ("facts", "caption"),
    [
        ({"caption": "a cat"}, "a cat"),
        ({"text": "a cat"}, "a cat"),
        ({"caption": "a cat", "text": "OCR"}, "a cat"),
        ({"caption": 7, "text": "a cat", "messages": "none", "conversations": []}, "a cat"),
        ({"alt": "a cat"}, ""),
    ],
)
def test_a_caption_may_be_stored_in_the_json(facts, caption):
    assert read_document(sample(facts, jpg=ONE)) == Document([ONE, caption], None)


def test_the_caption_of_a_text_file_is_preferred_to_that_of_the_json():
    for facts in ({"caption": "other"}, llava("<image>What?", "A cat.")):
        assert read_document({**sample(facts, jpg=ONE), "txt": b"a cat"}) == Document([ONE, "a cat"], None)


OURS = {"texts": ["a", None, "b"], "metadata": [None, {"file": "0.png"}, None], "roles": ["user", "user", "assistant"]}


def test_turns_and_tools_of_our_tars_are_read():
    turns = [{"name": "Ann"}, None, {"train": False}]
    found = read_document(sample({**OURS, "turns": turns, "tools": [{"name": "w"}]}, png_0=ONE))
    assert found == Document(["a", ONE, "b"], OURS["roles"], turns, [{"name": "w"}])
    assert read_document(sample({**OURS, "turns": None}, png_0=ONE)) == Document(["a", ONE, "b"], OURS["roles"])


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"roles": ["user", "user", "judge"]}, "unknown_role"),
        ({"roles": ["user", "user", None]}, "unknown_role"),
        ({"turns": [None]}, "bad_turns"),
        ({"turns": {}}, "bad_turns"),
        ({"turns": [None, None, {"kind": "song"}]}, "bad_turns"),
        ({"turns": [None, None, {"begins": "yes"}]}, "bad_turns"),
        ({"turns": [None, None, "reasoning"]}, "bad_turns"),
        ({"turns": [{"name": "Ann"}, None, None], "texts": [None, None, "b"]}, "bad_turns"),
        ({"tools": "w"}, "bad_tools"),
    ],
)
def test_invalid_roles_turns_and_tools_are_refused(more, reason):
    with pytest.raises(ValueError, match=f"^{reason}$"):
        read_document(sample({**OURS, **more}, png_0=ONE))


@pytest.mark.parametrize(
    "facts",
    [
        llava("<image>\nThis or <image>?", "Both."),
        llava("<image>\nThis or <image>?", "Both.", image=["1.png", "0.png"]),
        chat(["Which?", {"type": "image", "image": "1.png"}, {"type": "image", "image": DATA}], "Both."),
    ],
)
def test_sizes_in_place_of_bytes_give_the_same_document(facts):
    """Lengths are measured without the bytes of members. Only an image inside the JSON is passed with its bytes."""
    whole = read_document(sample(facts, png_0=ONE, png_1=TWO)).positions
    sized = read_document(sample(facts, png_0=(8, 8), png_1=(9, 9))).positions
    assert len(whole) == len(sized)
    for one, other in zip(whole, sized, strict=True):
        assert one == {(8, 8): ONE, (9, 9): TWO}.get(other, other) if isinstance(other, tuple) else one == other


@pytest.mark.parametrize(
    "facts",
    [{"conversation": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
     {"texts": [{"user": "Q", "assistant": "A", "source": "ai2d"}]}],
    ids=["conversation", "The Cauldron's texts"],
)  # fmt: skip
def test_other_key_names_for_turns_are_read(facts):
    assert read_document(sample(facts, jpg=ONE)) == Document([ONE, "Q", "A"], ROLES)


TWO_CALLS, NO_OBJECT = '[{"name": "a"}, {"name": "b"}]', '{"name": "a", "arguments": 7}'


@pytest.mark.parametrize("call", ["", "{", "[]", '{"name": 1}', TWO_CALLS, "7", NO_OBJECT])
def test_a_tool_call_position_without_a_valid_call_is_refused(call):
    facts = {"texts": ["Q", call], "metadata": [None, None], "roles": ROLES[1:], "turns": [None, {"kind": "tool_call"}]}
    with pytest.raises(ValueError, match="bad_tool_call"):
        read_document(sample(facts))
    facts["texts"][1] = '{"function": {"name": "a", "arguments": "{\\"b\\": 1}"}}'
    assert json.loads(read_document(sample(facts)).positions[1]) == {"name": "a", "arguments": {"b": 1}}
