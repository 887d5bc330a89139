"""What a model of transformers cannot answer is counted, and a model that cannot be used is one line."""

import contextlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.generators.written_models import GREEDY, answers, photo, prompts_for, write_model, write_text_model
from tests.train.published import write_published
from vlmdata.errors import GeneratorStopped, RecipeError
from vlmdata.generator import Answer, Prompt, Sampling
from vlmdata.generators.hf import Hf
from vlmdata.models.model_folder import loading

GOOD = Prompt("what is this?")


def opened(folder, batch=4):
    return Hf(model=str(folder), precision="fp32", batch=batch).open(None)


def failures(writer, prompts, sampling=GREEDY):
    return [one.failure for one in answers(writer, prompts, sampling)]


def test_a_model_that_only_reads_text_fails_prompts_with_images(tmp_path):
    writer = opened(write_model("Llama", tmp_path))
    assert failures(writer, [GOOD, Prompt("what?", (photo(0),)), GOOD]) == [None, "no_images", None]


def test_a_broken_or_very_narrow_image_fails_only_its_own_prompt(tmp_path):
    writer = opened(write_model("Qwen2-VL", tmp_path))
    bodies = [photo(0), b"no image", photo(1)[:90], photo(2, 900, 2), photo(3)]
    found = failures(writer, [Prompt("what?", (body,)) for body in bodies])
    assert found == [None, "bad_image", "bad_image", "bad_prompt", None]


def test_a_prompt_has_at_most_the_context_less_the_longest_answer(tmp_path):
    writer = opened(write_text_model("GPT-2", tmp_path, template=False))  # a byte is a token, and the context has 96
    prompts = [Prompt("a" * 84), Prompt("a" * 85), Prompt("a" * 500), Prompt(""), Prompt("a")]
    found = answers(writer, prompts)
    assert [one.failure for one in found] == [None, "too_long", "too_long", "bad_prompt", None]
    assert found[0].tokens == 12 and found[0].prompt_tokens == 84
    assert failures(writer, prompts[:1], Sampling(10**9)) == ["too_long"]


def test_images_count_for_the_context(tmp_path):
    folder = write_model("LLaVA 1.5", tmp_path)
    prompts = [Prompt("a" * count, (photo(0),)) for count in (3, 4)]
    (length, _) = (one.prompt_tokens for one in answers(opened(folder), prompts))
    assert length > 16 + 3
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = length + 12
    (folder / "config.json").write_text(json.dumps(config))
    assert failures(opened(folder), prompts) == [None, "too_long"]


@pytest.mark.parametrize("name", ["Llama", "LLaVA 1.5", "Qwen2-VL", "Idefics3"])
def test_special_tokens_in_a_prompt_are_plain_text(name, tmp_path):
    writer = opened(write_model(name, tmp_path))
    special = writer.inputs.form.text(Prompt("")).split("\n")[0] + "".join(map(str, writer.inputs.tokenizer.all_special_tokens))
    token, images = ("<image>", ()) if name == "Llama" else (writer.inputs.image_token, (photo(0),))
    hostile = Prompt(f"{token} {special}{token}<im{token}age>", images)
    plain = Prompt(hostile.text.replace("<", "< "), images)
    (found, _) = answers(writer, [hostile, plain])
    assert found.failure is None and found.prompt_tokens > len(hostile.text)
    known = set(writer.inputs.tokenizer.added_tokens_decoder)
    ids = writer.inputs.tokenizer(writer.inputs.form.text(hostile))["input_ids"]
    bare = writer.inputs.tokenizer(writer.inputs.form.text(Prompt("a", images)))["input_ids"]
    assert [one for one in ids if one in known] == [one for one in bare if one in known]


def test_a_model_with_broken_weights_stops_after_a_few_failures_and_stores_none(tmp_path):
    folder = write_model("Llama", tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] *= torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    found: dict[int, Answer] = {}
    with pytest.raises(
        GeneratorStopped, match=r"^hf: .* gives probabilities that are not finite\. Use precision: fp32, or"
    ) as error:
        opened(folder).answer(iter([GOOD] * 100), Sampling(50), found.__setitem__)
    assert len(str(error.value).splitlines()) == 1
    assert not found


def test_a_processor_that_does_not_fit_its_model_is_one_line(tmp_path):
    folder = write_model("LLaVA 1.5", tmp_path)
    file = folder / "processor_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "num_additional_image_tokens": settings["num_additional_image_tokens"] + 1}))
    line = r"^hf: .* fails on its own processor's inputs: .*\. Check that its config\.json and the files of its processor .*$"
    with pytest.raises(GeneratorStopped, match=line) as found:
        answers(opened(folder), [Prompt("what?", (photo(0),))])
    assert len(str(found.value).splitlines()) == 1


@contextlib.contextmanager
def room_for(prompts, tokens=10**9):
    """Make torch's embeddings fail as on a GPU that has memory for a batch of `prompts`, each with at most `tokens` tokens."""

    def look(module, arguments):
        if isinstance(module, torch.nn.Embedding) and (arguments[0].shape[0] > prompts or arguments[0].shape[-1] > tokens):
            raise torch.OutOfMemoryError("CUDA out of memory.")

    hook = torch.nn.modules.module.register_module_forward_pre_hook(look)
    try:
        yield
    finally:
        hook.remove()


def test_a_batch_that_does_not_fit_is_halved_until_it_fits(tmp_path):
    folder = write_model("Llama", tmp_path)
    prompts = [*prompts_for("Llama"), Prompt("what?", (photo(0),))]
    expected = [one.text for one in answers(opened(folder), prompts)]
    writer = opened(folder, batch=8)
    with room_for(3):
        assert [one.text for one in answers(writer, prompts)] == expected
    assert writer.batch == 2


def test_a_gpu_without_room_for_one_prompt_stops_after_a_few_failures_and_stores_none(tmp_path):
    writer = opened(write_model("Llama", tmp_path), batch=8)
    found: dict[int, Answer] = {}
    with room_for(0), pytest.raises(GeneratorStopped, match=r"^hf: .* has too little memory on the GPU for one prompt\. Use"):
        writer.answer(iter([GOOD] * 100), GREEDY, found.__setitem__)
    assert not found


def test_failures_are_held_back_until_a_prompt_is_answered_or_none_is_left(tmp_path):
    writer = opened(write_model("Llama", tmp_path), batch=1)
    long, stored = Prompt("long " * 20), []

    def asked(prompts: list[Prompt]) -> list[tuple[int, str | None]]:
        del stored[:]
        with room_for(1, tokens=40):
            writer.answer(iter(prompts), Sampling(2), lambda number, answer: stored.append((number, answer.failure)))
        return stored

    def seven_and_a_good_one():
        for _ in range(7):
            assert not stored
            yield long
        yield GOOD

    assert asked(seven_and_a_good_one()) == [*((number, "no_memory") for number in range(7)), (7, None)]
    assert asked([long] * 2) == [(0, "no_memory"), (1, "no_memory")]
    with pytest.raises(GeneratorStopped, match="has too little memory on the GPU for one prompt"):
        asked([long] * 6)  # with those of the call before, these are eight in a row
    assert not stored


def test_a_text_model_without_a_chat_template_gets_the_plain_text(tmp_path):
    folder = write_text_model("Llama", tmp_path / "plain", template=False)
    writer = opened(folder)
    assert writer.inputs.form.text(Prompt("Once upon", system="Be short.")) == "Be short.\nOnce upon"
    (found,) = answers(writer, [Prompt("Once upon")])
    assert found.prompt_tokens == len("Once upon")


def test_a_model_without_a_chat_template_gets_the_images_before_the_text(tmp_path):
    folder = write_model("LLaVA 1.5", tmp_path)
    (folder / "chat_template.jinja").unlink()
    writer = opened(folder)
    assert writer.inputs.form.text(Prompt("What?", (photo(0), photo(1)))) == "<image><image>\nWhat?"
    assert failures(writer, [Prompt("What?", (photo(0), photo(1))), Prompt("What?")]) == [None, None]


@pytest.mark.parametrize("name", ["BLIP-2", "PaliGemma"])
def test_a_processor_that_writes_the_images_itself_gets_the_text_alone(name, tmp_path):
    writer = opened(write_published(name, tmp_path), batch=2)
    assert writer.inputs.form.text(Prompt("What?", (photo(0),))) == "What?"
    found = answers(writer, [Prompt("What?", (photo(number),)) for number in range(3)])
    assert [one.failure for one in found] == [None] * 3 and found[0].prompt_tokens > len("What?")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}", "[system]Be short.[user]Once"),
        (
            "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
            "[{{ m.role }}]{{ m.content }}{% endfor %}",
            "[user]Be short.\nOnce",
        ),
        ("[{{ messages[-1].content }}]", "[Be short.\nOnce]"),  # leaves the system text out
        ("{% for m in messages %}{% for c in m.content %}[{{ c.text }}]{% endfor %}{% endfor %}", "[Be short.][Once]"),
    ],
    ids=["system", "refuses a system text", "ignores a system text", "takes parts"],
)
def test_a_chat_template_is_used_in_the_way_that_it_accepts(template, expected, tmp_path):
    folder = write_text_model("Llama", tmp_path)
    (folder / "chat_template.jinja").write_text(template)
    assert opened(folder).inputs.form.text(Prompt("Once", system="Be short.")) == expected


@pytest.mark.parametrize("template", ["{{ broken", "no places", "{{ messages[5].content }}"])
def test_a_chat_template_that_cannot_be_used_is_one_line(template, tmp_path):
    folder = write_text_model("Llama", tmp_path)
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(RecipeError, match=r"the chat template of .* cannot be used") as found:
        opened(folder)
    assert len(str(found.value).splitlines()) == 1


def without(*names):
    return lambda folder: [path.unlink() for name in names for path in folder.glob(name)]


def config(text):
    return lambda folder: (folder / "config.json").write_text(text)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "there is no folder"),
        (without("config.json"), "is not a model folder of transformers"),
        (config("{"), "is not a model folder of transformers"),
        (config("[" * 100_000), "is not a model folder of transformers"),
        (config("[]"), "config.json has no model_type"),
        (config('{"model_type": 3}'), "config.json has no model_type"),
        (without("model.safetensors"), "has no weights"),
        (without("tokenizer*"), "has no tokenizer"),
        (without("processor_config.json", "preprocessor_config.json"), "but has no processor"),
    ],
)
def test_a_folder_that_is_not_a_model_is_found_before_work_starts(damage, message, tmp_path):
    folder = write_model("LLaVA 1.5", tmp_path / "model")
    Hf(model=str(folder)).check()
    damage(folder)
    with pytest.raises(RecipeError, match=f"^model: .*{message}") as found:
        Hf(model=str(folder)).check()
    assert len(str(found.value).splitlines()) == 1


def test_wrong_parameters_are_found_before_work_starts(tmp_path):
    for model in ("", "/nowhere", "./nowhere", "~/nowhere", "a/b/c"):
        with pytest.raises(RecipeError, match=r"^model: there is no folder"):
            Hf(model=model).check()
    with pytest.raises(RecipeError, match=r"^batch must be 0 or more, not -1"):
        Hf(model="name/on-the-hub", batch=-1).check()
    Hf(model="name/on-the-hub").check()


def cut_weights(folder):
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])


def other_type(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))


def own_code(folder):
    text = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}}
    (folder / "config.json").write_text(json.dumps(text))
    (folder / "mine.py").write_text(f"open('{folder}/ran', 'w')")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_weights, "cannot be loaded"),
        (other_type, "is a vit, which does not write text"),
        (own_code, "cannot be loaded"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "the tokenizer of .* cannot be loaded"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_one_line(damage, message, tmp_path):
    folder = write_model("Llama", tmp_path)
    damage(folder)
    with pytest.raises(RecipeError, match=message) as found:
        opened(folder)
    assert len(str(found.value).splitlines()) == 1 and not (folder / "ran").exists()


def test_a_name_on_the_hub_that_cannot_be_reached_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RecipeError) as found:
        opened("org/captioner")
    line = str(found.value)
    assert line.startswith("model: 'org/captioner' cannot be loaded from the Hugging Face Hub: ") and "\n" not in line
    assert line.endswith("Check the name and the network of the workers, or copy the model into a folder and name this folder")


def test_an_error_of_the_system_keeps_its_own_words(tmp_path):
    for model, error in (("org/captioner", OSError(28, "No space left on device")), (str(tmp_path), OSError("unreadable"))):
        with pytest.raises(OSError, match=r"No space left|unreadable"), loading(model):
            raise error


def test_the_identity_follows_the_weights_and_the_precision(tmp_path):
    folder = write_model("Llama", tmp_path)
    before = Hf(model=str(folder)).identity()
    assert Hf(model=str(folder), batch=3).identity() == before
    assert Hf(model=str(folder), precision="fp32").identity() != before
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] *= 2
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert Hf(model=str(folder)).identity() != before
