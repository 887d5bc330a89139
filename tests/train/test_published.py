"""A published model of each family is loaded, trained for two steps and exported, and transformers loads the export."""

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor

from tests.train.families import texts_and_images
from tests.train.made import VISION
from tests.train.made_cross import IDEFICS_TEMPLATE
from tests.train.published import FAMILIES, write_published
from tests.train.runs import write_data
from tests.train.test_generate import until_stop
from tests.train.tiny import LLAMA, tiny_model
from vlmdata.step import RecipeError
from vlmdata_train.convert.adapter import save_adapter
from vlmdata_train.convert.checkpoint_folder import model_of
from vlmdata_train.convert.fill import fill_from_published
from vlmdata_train.convert.published import Published
from vlmdata_train.convert.restore import restore
from vlmdata_train.convert.save_published import save_published
from vlmdata_train.data.collate import Ready, build_batch
from vlmdata_train.data.marks import IMAGE_MARK
from vlmdata_train.data.open_feed import prompter_of
from vlmdata_train.export import export
from vlmdata_train.loop.loop import run_training
from vlmdata_train.model.batch import Batch
from vlmdata_train.model.decoding import Decoding
from vlmdata_train.model.freezing import apply_parts
from vlmdata_train.model.generate import generate
from vlmdata_train.model.model import VisionLanguageModel, build_model
from vlmdata_train.model.model_recipe import Lora, ModelRecipe, Part
from vlmdata_train.model.tokens import BEGIN, CHAT_TEMPLATE
from vlmdata_train.model.weight_places import weight_places
from vlmdata_train.recipe_file import load

pytestmark = pytest.mark.whole

TOLERANCE = 1e-5  # of logits, as a share of the largest
SIZES = [(40, 60), (33, 20), (24, 24)]


def picture(number: int) -> Image.Image:
    """Return a picture of noise."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (*SIZES[number], 3), dtype=np.uint8))


def served(folder: Path, images: int, prompt: str | None = None, backend: str = "pil") -> tuple[Any, dict[str, torch.Tensor]]:
    """Load a folder as any user of transformers does. Return its model, and its inputs for a question with some images."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    processor.image_processor = AutoImageProcessor.from_pretrained(folder, backend=backend)
    if prompt is not None:
        return model, processor(text=prompt, images=[picture(n) for n in range(images)], return_tensors="pt")
    content = [{"type": "image", "image": picture(n)} for n in range(images)]
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": "What is it?"}]}]
    if processor.chat_template is None:  # Idefics 1's class has none, and takes texts and images in order
        text = processor.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        text = text.removeprefix(processor.tokenizer.bos_token)
        return model, processor(text=[texts_and_images(text, [picture(n) for n in range(images)])], return_tensors="pt")
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    return model, inputs


def ids_of(inputs: dict[str, torch.Tensor], image_token_id: int) -> list[list[int]]:
    """Return the ids of a processor, with the image token where Kosmos-2's writes other tokens, which features replace too."""
    features = inputs.get("image_embeds_position_mask", torch.zeros_like(inputs["input_ids"]))
    return inputs["input_ids"].masked_fill(features.bool(), image_token_id).tolist()


def png(number: int) -> bytes:
    """Return the same picture, encoded without loss."""
    file = io.BytesIO()
    picture(number).save(file, "PNG")
    return file.getvalue()


def batch_of(model: VisionLanguageModel, *images: int) -> Batch:
    """Return our batch of the same question about these numbers of images. Several questions are packed into one row."""
    ready = []
    for count in images:
        text = IMAGE_MARK * count + ("\n" if count else "") + "What is it?"
        prompt = prompter_of(model).question([{"role": "user", "content": text}], [png(n) for n in range(count)])
        ready.append(Ready(prompt, "a", str(count)))
    tokens = sum(len(one.prompt.input_ids) for one in ready)
    return build_batch(ready, model.plan, 0, packed_tokens=tokens if len(ready) > 1 else None, broken=Counter())


def loaded(folder: Path) -> VisionLanguageModel:
    """Return our model of a published one, with its weights."""
    model = build_model(model_of(str(folder))).eval()
    fill_from_published(model, str(folder), weight_places(model))
    return model


WAYS = [Decoding(), Decoding(beams=3), Decoding(temperature=1.3, top_p=0.8, repetition_penalty=1.2, seed=2)]


def assert_same_answers(ours: VisionLanguageModel, batch: Batch, theirs: Any, inputs: dict[str, torch.Tensor]) -> None:
    """Compare the ids that both models generate: the most likely ones, by beam search, and drawn ones.

    Our output layers of Llama 3.2 Vision and Molmo 2 have more rows, which change the sum of probabilities.
    """
    stops = prompter_of(ours).template.stop_ids
    for way in WAYS if len(theirs.get_output_embeddings().weight) == len(ours.lm_head.weight) else WAYS[:1]:
        settings = theirs.generation_config  # BLIP-2 would use those of its language model
        settings.max_new_tokens, settings.num_beams, settings.repetition_penalty = 8, way.beams, way.repetition_penalty
        settings.do_sample, settings.top_k, settings.top_p = bool(way.temperature), 0, way.top_p
        settings.temperature = way.temperature or 1.0
        torch.manual_seed(way.seed or 0)
        given = theirs.generate(**inputs, generation_config=settings)[0, inputs["input_ids"].shape[1] :].tolist()
        assert until_stop(given, stops) == generate(ours, batch, max_new_tokens=8, stop_ids=stops, decoding=way)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_published_model_is_trained_and_exported_and_transformers_answers_alike(family: str, tmp_path: Path) -> None:
    start = write_published(family, tmp_path / "start")
    data = write_data(tmp_path / "data", captions=0, conversations=12)
    recipe = load("instruct", overrides={
        "start": str(start), "data": data, "out": str(tmp_path / "run"), "epochs": None, "steps": 2, "speed": {"device": "cpu"},
        "batches": {"tokens": 512, "sample_tokens": 256}, "lr": 1e-2, "held_out": {}, "logs.tensorboard": False,
    })  # fmt: skip
    checkpoint = run_training(recipe).checkpoint
    assert checkpoint is not None
    export(checkpoint, tmp_path / "export")
    ours, _ = restore(checkpoint, "cpu")
    names = [json.loads((folder / "config.json").read_text())["architectures"] for folder in (start, tmp_path / "export")]
    assert names[0] == names[1]
    for images in FAMILIES[family].images:
        made = FAMILIES[family]
        theirs, inputs = served(tmp_path / "export", images, made.prompt, made.backend)
        batch = batch_of(ours, images)
        assert ids_of(inputs, ours.image_token_id) == batch.input_ids.tolist()
        with torch.no_grad():
            logits = theirs(**inputs).logits[0]
            own = ours.logits(batch)[0, :, : logits.shape[1]]  # Llama 3.2 Vision and Molmo 2 have fewer rows there
            assert (own - logits).abs().max() < TOLERANCE * logits.abs().max()
        assert_same_answers(ours, batch, theirs, inputs)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_is_loaded_and_saved_again_has_the_same_configuration_and_weights(family: str, tmp_path: Path) -> None:
    start = write_published(family, tmp_path / "start", max_shard_size="60KB")
    assert len(list(start.glob("model-*.safetensors"))) > 2
    model = loaded(start)
    batch = batch_of(model, 1)
    with torch.no_grad():
        logits = model.logits(batch)
        save_published(model, tmp_path / "again", max_shard_size="60KB")
        assert len(list((tmp_path / "again").glob("model-*.safetensors"))) > 2
        assert torch.equal(model.logits(batch), logits)
    before, after = Published(str(start)), Published(str(tmp_path / "again"))
    one, other = dict(before.weights()), dict(after.weights())
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert differences(before.config.to_dict(), after.config.to_dict()) == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_in_bf16_stays_in_bf16_and_transformers_answers_alike(family: str, tmp_path: Path) -> None:
    start = write_published(family, tmp_path / "start", dtype=torch.bfloat16)
    model = loaded(start).to(torch.bfloat16)
    save_published(model, tmp_path / "again")
    one, other = (dict(Published(str(tmp_path / name)).weights()) for name in ("start", "again"))
    assert {value.dtype for value in other.values()} == {torch.bfloat16}
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert json.loads((tmp_path / "again/config.json").read_text())["dtype"] == "bfloat16"  # the type in which it is loaded
    theirs, inputs = served(tmp_path / "again", 1, FAMILIES[family].prompt, FAMILIES[family].backend)
    batch = batch_of(model, 1)
    with torch.no_grad():
        logits = theirs(**inputs).logits[0]
        own = model.float().logits(batch)[0, :, : logits.shape[1]]
        assert (own - logits).abs().max() < TOLERANCE * logits.abs().max()


def differences(one: dict[str, Any], other: dict[str, Any], place: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the entries with different values. The folder and special ids that generation does not need may differ."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in sorted(one.keys() | other.keys()):
        a, b = one.get(name), other.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            found |= differences(a, b, f"{place}{name}.")
        elif a != b and name not in ("_name_or_path", "dtype", "bos_token_id", "architectures"):
            found[place + name] = (a, b)
    return found


SIGLIP = {"model_type": "siglip_vision_model", **VISION, "patch_size": 4}
OWN: dict[str, ModelRecipe] = {  # models of our own parts, and the families whose formats hold them
    "idefics": ModelRecipe(
        encoder={"hf_vision": {
            "config": {"model_type": "clip_vision_model", **VISION, "image_size": 16, "patch_size": 4}, "layer": -1,
            "tokens": "all",
        }},
        preprocessing="resize", abstractor={"perceiver": {"latents": 3, "layers": 1, "heads": 2, "head_width": 4}},
        fusion={"cross_attention": {"every": 1, "mlp_width": LLAMA["intermediate_size"]}},
        writing={"between": {"start": "<fake_token_around_image>", "end": "<fake_token_around_image>"}},
        language={"hf_causal": {"config": {**LLAMA, "num_key_value_heads": 4}, "chat_template": IDEFICS_TEMPLATE}},
    ),
    "idefics3": ModelRecipe(
        encoder={"hf_vision": {"config": {**SIGLIP, "image_size": 48}, "layer": -1, "norm": True}},
        preprocessing={"square_tiles": {"longest": 96}}, abstractor={"pixel_shuffle": {"bias": False}}, writing="tile_grid",
        language={"hf_causal": {"config": {**LLAMA, "max_position_embeddings": 2048}}},
    ),
    "internvl": ModelRecipe(
        encoder={"hf_vision": {
            "config": {"model_type": "internvl_vision", **VISION, "image_size": 16, "patch_size": 4}, "layer": -1, "norm": True,
        }},
        preprocessing={"dynamic_tiles": {"max_tiles": 4}}, abstractor={"pixel_shuffle": {"layers": 2, "norm": True}},
        writing={"between": {"start": "<img>", "end": "</img>"}}, language={"hf_causal": {"config": LLAMA}},
    ),
    "llava_onevision": ModelRecipe(
        encoder={"hf_vision": {"config": {**SIGLIP, "image_size": 16}, "layer": -1}},
        preprocessing={"anyres": {"max_tiles": 2, "several": "pad"}}, language={"hf_causal": {"config": LLAMA}},
        writing={"plain": {"video_token": "<video>"}},
    ),
    "molmo2": ModelRecipe(
        encoder={"hf_vision": {"config": {**SIGLIP, "image_size": 24}, "layer": [-1, -2]}},
        preprocessing={"overlapping_crops": {"margin": 1, "keep_aspect": False, "antialias": False}},
        abstractor={"attention_pool": {"heads": 2, "head_width": 8}}, fusion={"added_tokens": {"two_way": True}},
        writing={"rows": {"row_end": "<im_col>", "start": "<im_start>", "end": "<im_end>", "image_token": "<im_patch>"}},
        language={"hf_causal": {
            "config": {**LLAMA, "model_type": "qwen3", "head_dim": 8}, "chat_template": f"{{{{ '{BEGIN}' }}}}{CHAT_TEMPLATE}",
        }},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", OWN)
def test_a_model_of_own_parts_is_exported_to_a_family_and_transformers_answers_alike(kind: str, tmp_path: Path) -> None:
    ours = tiny_model(OWN[kind], seed=1)
    save_published(ours, tmp_path)
    theirs, inputs = served(tmp_path, 1)
    batch = batch_of(ours, 1)
    assert theirs.config.model_type == kind
    assert inputs["input_ids"].tolist() == batch.input_ids.tolist()
    with torch.no_grad():
        logits = theirs(**inputs).logits
        own = ours.logits(batch)[..., : logits.shape[-1]]  # Molmo 2 has fewer rows in its output layer
        assert (own - logits).abs().max() < TOLERANCE * logits.abs().max()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_or_foreign_weight_is_named_with_its_part(family: str, tmp_path: Path) -> None:
    start = write_published(family, tmp_path / "start")
    file = start / "model.safetensors"
    tensors = load_file(file)
    first = sorted(tensors)[0]
    save_file({name: tensor for name, tensor in tensors.items() if name != first}, file)
    with pytest.raises(ValueError, match=r"the files lack the weight '.*' \(missing weights: 1\)"):
        loaded(start)
    save_file({**tensors, "oddly.named": torch.zeros(2)}, file)
    with pytest.raises(ValueError, match=r"the model has no place for the weight 'oddly\.named'"):
        loaded(start)
    save_file({**tensors, first: tensors[first].flatten()[:3].clone()}, file)
    with pytest.raises(ValueError, match=r"the weight '.*' has the shape \(3,\), but the model needs"):
        loaded(start)


def test_a_last_answer_has_an_end_though_the_template_of_molmo_2_writes_none(tmp_path: Path) -> None:
    model = build_model(model_of(str(write_published("Molmo 2", tmp_path))))
    turns = [(role, text) for text in ("red", "blue") for role in ("user", "assistant")]
    messages = [{"role": role, "content": text} for role, text in turns]
    text, answers = prompter_of(model).template.find_answers(messages, [1, 3])
    assert text.startswith("<|im_end|><|im_start|>user")
    assert [text[start:end] for start, end in answers] == ["red<|im_end|>", "blue<|im_end|>"]


def test_a_tensor_that_cannot_be_divided_and_a_half_of_a_table_are_named(tmp_path: Path) -> None:
    start = write_published("Molmo 2", tmp_path)
    file, fused = start / "model.safetensors", "model.transformer.blocks.0.self_attn.att_proj.weight"
    tensors = load_file(file)
    save_file({**tensors, fused: tensors[fused][:-1].clone()}, file)
    with pytest.raises(ValueError, match=r"the shape of the weight 'model\.transformer\.blocks\.0\..*att_proj.*' does not fit"):
        loaded(start)
    save_file({name: tensor for name, tensor in tensors.items() if not name.endswith("new_embedding")}, file)
    with pytest.raises(ValueError, match=r"the files lack the weight 'language\.model\.embed_tokens\.weight'"):
        loaded(start)


@pytest.mark.parametrize(
    ("family", "whole"),  # `whole`: modules of the language model that are trained without LoRA
    [
        ("ViP-LLaVA", []), ("Qwen2-VL", []), ("InternVL", []), ("Idefics2", []), ("Llama 3.2 Vision", []), ("Molmo 2", []),
        ("LLaVA-NeXT", []), ("Idefics 1, vector gates", ["model.embed_tokens", "lm_head"]),
    ],
)  # fmt: skip
def test_lora_is_exported_as_an_adapter_that_peft_adds_to_the_published_model(
    family: str, whole: list[str], tmp_path: Path
) -> None:
    start = write_published(family, tmp_path / "start")
    data = write_data(tmp_path / "data", captions=0, conversations=12)
    rules = [{"weights": whole, "frozen": False}] if whole else []
    parts = {"language": {"lora": {"rank": 4, "alpha": 32}, "rules": rules}, "encoder": {"lora": {"rank": 2, "alpha": 8}}}
    if family == "LLaVA-NeXT":  # peft cannot save its vector after rows, which is in no module of transformers
        parts["abstractor"] = {"rules": [{"weights": ["arrangement.*"], "frozen": True}]}
    recipe = load("instruct", overrides={
        "start": str(start), "data": data, "out": str(tmp_path / "run"), "epochs": None, "steps": 2, "speed": {"device": "cpu"},
        "batches": {"tokens": 512, "sample_tokens": 256}, "lr": 1e-2, "held_out": {}, "logs.tensorboard": False,
        "parts": parts,
    })  # fmt: skip
    checkpoint = run_training(recipe).checkpoint
    assert checkpoint is not None
    export(checkpoint, tmp_path / "adapter", adapter=True)
    export(checkpoint, tmp_path / "merged")
    assert not (tmp_path / "adapter/model.safetensors").exists()
    merged, inputs = served(tmp_path / "merged", 2)
    base = AutoModelForImageTextToText.from_pretrained(start, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    with torch.no_grad():
        expected = merged(**inputs).logits
        assert (adapted(**inputs).logits - expected).abs().max() < TOLERANCE * expected.abs().max()
        with adapted.disable_adapter():
            assert (adapted(**inputs).logits - expected).abs().max() > 0.01 * expected.abs().max()


def test_a_trained_weight_that_no_module_without_lora_holds_is_named(tmp_path: Path) -> None:
    model = loaded(write_published("LLaVA-OneVision", tmp_path / "start"))
    apply_parts(model.parts(), {"language": Part(lora=Lora(rank=2, alpha=4))})
    with pytest.raises(ValueError, match=r"peft cannot save the trained weight 'arrangement\.newline' beside LoRA"):
        save_adapter(model, tmp_path / "adapter", base="start", trained={"arrangement.newline", "abstractor.0.weight"})


@pytest.mark.parametrize("head", ["other", "equal", "none"])
@pytest.mark.parametrize("size", ["5GB", "60KB"])
def test_an_output_layer_in_the_files_is_used_though_the_configuration_ties_it(size: str, head: str, tmp_path: Path) -> None:
    start, name = write_published("InternVL", tmp_path, max_shard_size=size), "language_model.lm_head.weight"
    words = next(value for name, value in Published(str(start)).weights() if name.endswith("embed_tokens.weight"))
    edit_json(start / "config.json", tie_word_embeddings=True)
    (file,) = [path for path in start.glob("*.safetensors") if name in load_file(path)]
    tensors, index = load_file(file), start / "model.safetensors.index.json"
    if head == "equal":
        tensors[name] = words.clone()
    if head == "none":
        del tensors[name]
        if index.exists():
            table = json.loads(index.read_text())["weight_map"]
            edit_json(index, weight_map={one: path for one, path in table.items() if one != name})
    save_file(tensors, file, metadata={"format": "pt"})
    model, (theirs, _) = loaded(start), served(start, 0)
    assert torch.equal(model.lm_head.weight, theirs.lm_head.weight)
    assert (model.lm_head.weight is model.language.get_input_embeddings().weight) == (head != "other")


def edit_json(path: Path, **changes: Any) -> None:
    """Replace entries of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_an_index_that_names_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    start = write_published("Qwen2-VL", tmp_path / "start")
    (start / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": "../secret.safetensors"}}))
    with pytest.raises(RecipeError, match=r"names '\.\./secret\.safetensors', which must be a file beside it"):
        list(Published(str(start)).weights())


def test_a_damaged_file_of_weights_is_named(tmp_path: Path) -> None:
    start = write_published("Qwen2-VL", tmp_path / "start")
    (start / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(RecipeError, match=r"model\.safetensors is damaged"):
        list(Published(str(start)).weights())
