"""A model that `export` writes for transformers answers as our checkpoint does, and a run can start from it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.train.runs import tiny_recipe, weights, write_data
from tests.train.shards import drawing
from tests.train.tiny import pack, sample
from vlmdata.step import RecipeError
from vlmdata_train.__main__ import main
from vlmdata_train.chat import Conversation
from vlmdata_train.convert.restore import restore
from vlmdata_train.data.marks import IMAGE_MARK
from vlmdata_train.data.open_feed import prompter_of
from vlmdata_train.loop.loop import run_training
from vlmdata_train.model.generate import generate
from vlmdata_train.recipe_file import parse

pytestmark = pytest.mark.whole

TOWER = {"width": 32, "layers": 2, "head_width": 16, "patch_size": 8, "image_size": 48}
LLAMA = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 2}  # fmt: skip
MODEL = {"encoder": {"open_clip": {"config": TOWER}}, "preprocessing": "pad", "language": {"hf_causal": {"config": LLAMA}}}
LORA = {"encoder": {"frozen": True}, "language": {"lora": {"rank": 4, "alpha": 32}}}


def photo() -> Any:
    """Make a picture of the tower's size, so that no resizing rounds its pixels."""
    return drawing("red", "circle", 48)


def served(folder: Path, **question: Any) -> tuple[Any, Any, torch.Tensor]:
    """Load a folder as any user of transformers does, and return its model, its inputs and its logits."""
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    content = [{"type": "image", "image": Image.fromarray(photo())}, {"type": "text", "text": "What colour is it?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True,
        return_tensors="pt",
    )  # fmt: skip
    with torch.no_grad():
        return model, inputs, model(**inputs).logits[0, -1]


def png(path: Path) -> str:
    """Write the picture losslessly."""
    Image.fromarray(photo()).save(path)
    return str(path)


@pytest.mark.parametrize("tokenizer", [{"vocabulary": 300}, None], ids=["a learned tokenizer", "bytes"])
def test_an_exported_run_with_lora_answers_as_its_checkpoint_does(tmp_path, capsys, monkeypatch, tokenizer):
    data = write_data(tmp_path / "data", captions=0, conversations=20)
    recipe = tiny_recipe(data, tmp_path / "run", model=MODEL, parts=LORA, lr=0.1, tokenizer=tokenizer)
    checkpoint = run_training(recipe).checkpoint
    capsys.readouterr()
    assert main(["export", str(checkpoint), str(tmp_path / "llava")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "llava")

    ours, _ = restore(checkpoint, "cpu")
    assert any("lora_" in name for name in ours.state_dict())
    heard: list[Any] = []
    kept = lambda model, batch, **options: heard.append(batch) or generate(model, batch, **options)  # noqa: E731
    monkeypatch.setattr("vlmdata_train.chat.generate", kept)
    talk = Conversation.open(str(checkpoint), [png(tmp_path / "p.png")], device="cpu", max_tokens=12)
    talk.model = ours
    answer = talk.ask("What colour is it?")
    theirs, inputs, logits = served(tmp_path / "llava")
    assert inputs["input_ids"].tolist() == heard[0].input_ids.tolist()  # its chat template gives the same prompt as ours
    with torch.no_grad():
        assert (ours.logits(heard[0])[0, -1] - logits).abs().max() < 1e-3 * logits.std()
    given = theirs.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert ours.tokenizer.decode(given, skip_special_tokens=True).strip() == answer
    facts = json.loads((tmp_path / "llava/config.json").read_text())
    assert facts["architectures"] == ["LlavaForConditionalGeneration"]
    assert main(["export", str(checkpoint), str(tmp_path / "llava")]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_a_model_without_a_class_in_transformers_is_exported_with_a_card_that_says_so(tmp_path, capsys):
    data = write_data(tmp_path / "data", captions=0, conversations=20)
    parts = {**MODEL, "fusion": "visual_experts", "positions": "shared"}
    recipe = tiny_recipe(data, tmp_path / "run", model=parts, parts=LORA, lr=0.1, steps=2)
    checkpoint, folder = run_training(recipe).checkpoint, tmp_path / "export"
    capsys.readouterr()
    assert main(["export", str(checkpoint), str(folder)]) == 0
    printed = capsys.readouterr()
    reason = "No format of a published family can hold this model"
    assert printed.out.strip() == str(folder) and reason in printed.err and reason in (folder / "README.md").read_text()
    ours, again = (restore(path, "cpu")[0] for path in (checkpoint, folder))
    assert not any("lora_" in name for name in again.state_dict())
    batch = pack(ours, [sample(ours, 12, 1, 1)])
    with torch.no_grad():
        torch.testing.assert_close(again.logits(batch), ours.logits(batch), rtol=1e-4, atol=1e-5)
    assert main(["chat", str(folder), png(tmp_path / "p.png"), "--max-tokens", "2", "--ask", "What is it?"]) == 0
    second = run_training(tiny_recipe(data, tmp_path / "second", model=None, start=str(folder), steps=1)).checkpoint
    assert weights(second).keys() == weights(folder).keys()


@pytest.mark.parametrize(("precision", "dtype", "written"), [
    ("fp32", None, torch.float32), ("bf16", None, torch.bfloat16), ("fp32", "bfloat16", torch.bfloat16),
    ("bf16", "float16", torch.float16),
])  # fmt: skip
def test_the_export_has_the_data_type_of_the_run_or_the_chosen_one(tmp_path, precision, dtype, written):
    data = write_data(tmp_path / "data", captions=0, conversations=20)
    speed = {"device": "cpu", "precision": precision}
    recipe = tiny_recipe(data, tmp_path / "run", model=MODEL, parts=LORA, lr=0.1, steps=2, speed=speed)
    checkpoint, options = run_training(recipe).checkpoint, [] if dtype is None else ["--dtype", dtype]
    assert main(["export", str(checkpoint), str(tmp_path / "llava"), *options]) == 0
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "llava")
    assert {weight.dtype for weight in load_file(tmp_path / "llava/model.safetensors").values()} == {written} == {model.dtype}


def test_an_adapter_has_no_data_type_of_its_own(tmp_path, capsys):
    data = write_data(tmp_path / "data", captions=0, conversations=20)
    checkpoint = run_training(tiny_recipe(data, tmp_path / "run", model=MODEL, steps=1)).checkpoint
    assert main(["export", str(checkpoint), str(tmp_path / "out"), "--adapter", "--dtype", "bfloat16"]) == 2
    assert "--dtype: an adapter has the data type of its run. Omit --dtype" in capsys.readouterr().err


def test_a_run_starts_from_a_published_llava_with_its_parts_and_tokenizer(tmp_path, capsys):
    data = write_data(tmp_path / "data", captions=0, conversations=20)
    first = run_training(tiny_recipe(data, tmp_path / "first", model=MODEL, tokenizer={"vocabulary": 300})).checkpoint
    assert main(["export", str(first), str(tmp_path / "llava")]) == 0
    parts = {"encoder": {"frozen": True}, "language": {"frozen": True}}
    recipe = tiny_recipe(data, tmp_path / "second", model=None, start=str(tmp_path / "llava"), parts=parts, steps=2)
    second = run_training(recipe).checkpoint
    before, after = weights(first), weights(second)
    language = [name for name in before if name.startswith("language.")]
    assert len(language) > 10 and all(torch.equal(before[name], after[name]) for name in language)
    assert not torch.equal(before["abstractor.0.weight"], after["abstractor.0.weight"])
    assert restore(second, "cpu")[0].tokenizer.get_vocab() == restore(first, "cpu")[0].tokenizer.get_vocab()
    assert main(["export", str(second), str(tmp_path / "again")]) == 0  # and is exported again
    assert not torch.allclose(served(tmp_path / "again")[2], served(tmp_path / "llava")[2])


# LLaVA's own templates take contents as lists of parts and put the images of a message first.
PARTS = (
    "{% for m in messages %}{{ m['role'].upper() + ': ' }}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'text') %}{{ c['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


@pytest.mark.parametrize(
    "place", ["chat_template.jinja", "chat_template.json", "processor_config.json", "tokenizer_config.json", None]
)
def test_a_run_starts_from_a_published_llava_wherever_its_chat_template_is_stored(tmp_path, place):
    data = write_data(tmp_path / "data", captions=0, conversations=20)
    first = run_training(tiny_recipe(data, tmp_path / "first", model=MODEL, steps=1)).checkpoint
    llava = tmp_path / "llava"
    assert main(["export", str(first), str(llava)]) == 0
    (llava / "chat_template.jinja").unlink()
    if place == "chat_template.jinja":
        (llava / place).write_text(PARTS)
    elif place is not None:
        facts = json.loads((llava / place).read_text()) if (llava / place).exists() else {}
        (llava / place).write_text(json.dumps({**facts, "chat_template": PARTS}))
    recipe = tiny_recipe(data, tmp_path / "second", model=None, start=str(llava), steps=1)
    if place is None:
        with pytest.raises(RecipeError, match=r"the tokenizer .*llava has no chat template. Set `chat_template`"):
            run_training(recipe)
        recipe = tiny_recipe(data, tmp_path / "second", model=None, start=str(llava), steps=1, chat_template=PARTS)
    second = run_training(recipe).checkpoint
    model, _ = restore(second, "cpu")
    assert model.tokenizer.chat_template == PARTS
    assert main(["export", str(second), str(tmp_path / "again")]) == 0
    ids = prompter_of(model).question([{"role": "user", "content": f"{IMAGE_MARK}\nWhat colour is it?"}], [(48, 48)]).input_ids
    assert served(tmp_path / "again")[1]["input_ids"][0].tolist() == ids
    assert model.tokenizer.decode(ids).startswith("USER: <image>")


@pytest.mark.parametrize("before", [{}, {"parts": LORA}], ids=["plain", "with LoRA"])
def test_the_second_stage_continues_with_weights_and_tokenizer_of_the_first(tmp_path, before):
    captions, chats = write_data(tmp_path / "captions"), write_data(tmp_path / "chats", captions=0, conversations=20)
    entry = {"vocabulary": 300}
    first = tiny_recipe(captions, tmp_path / "first", stage="align", model=MODEL, tokenizer=entry, steps=3, **before)
    start = run_training(first).checkpoint
    frozen = {name: {"frozen": True} for name in ("encoder", "language")}
    second = tiny_recipe(chats, tmp_path / "second", model=MODEL, tokenizer=entry, start=str(start), parts=frozen, steps=1)
    model, _ = restore(run_training(second).checkpoint, "cpu")
    one, _ = restore(start, "cpu")
    # learned from the captions, although the chats were available
    assert model.tokenizer.get_vocab() == one.tokenizer.get_vocab()
    ids = torch.tensor([[5, 6, 7]])
    hidden = [m.run_language(m.language.get_input_embeddings()(ids), torch.arange(3)[None], packing(ids)) for m in (model, one)]
    torch.testing.assert_close(hidden[0], hidden[1], rtol=1e-4, atol=1e-5)


def packing(ids: torch.Tensor) -> Any:
    """Return the attention pattern of one sample."""
    from vlmdata_train.model.attention import plan_attention

    return plan_attention(torch.ones_like(ids))


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("nowhere", "is not a checkpoint, and transformers finds no model with this name or path"),
        ("run", "Did you mean '.*run/checkpoints/step_00000006'"),
        ("bert", "bert is a bert model, but only models of these types can be loaded: .*llava, .*llava_next"),
    ],
)
def test_an_invalid_start_is_reported_in_one_line_before_any_work(tmp_path, start, message):
    (tmp_path / "run/checkpoints/step_00000006").mkdir(parents=True)
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert/config.json").write_text('{"model_type": "bert"}')
    tree = {"stage": "align", "data": "D", "out": "O", "steps": 1, "start": str(tmp_path / start)}
    with pytest.raises(RecipeError, match=message) as caught:
        parse(tree)
    assert "\n" not in str(caught.value)


def test_a_start_with_other_parts_is_refused_and_the_weight_is_named(tmp_path):
    data = write_data(tmp_path / "data", captions=0, conversations=20)
    first = run_training(tiny_recipe(data, tmp_path / "first", model=MODEL, steps=1)).checkpoint
    assert main(["export", str(first), str(tmp_path / "llava")]) == 0
    with pytest.raises(RecipeError, match=r"no place for the weight 'vision_tower\..*'\. Omit `model` in the recipe"):
        run_training(tiny_recipe(data, tmp_path / "second", model=MODEL, start=str(tmp_path / "llava"), steps=1))
