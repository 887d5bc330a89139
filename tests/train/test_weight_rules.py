"""Rules choose weights of a part by patterns of their names: published training strategies, rates, LoRA, and mistakes."""

import re
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from tests.train.test_encoders import SMALL
from tests.train.test_lora import batch_of, logits, updates_of
from tests.train.test_parity_qwen import RECIPE as QWEN_2
from tests.train.tiny import TINY, randomise, tiny_model
from vlmdata.step import RecipeError
from vlmdata_train.loop.optim import make_optimizer, parameter_groups, set_learning_rates
from vlmdata_train.model.freezing import apply_parts, check_gates
from vlmdata_train.model.lora import merge_lora
from vlmdata_train.model.weight_rules import matches
from vlmdata_train.recipe import Optimizer, build_parts

pytestmark = pytest.mark.whole

ROOT = Path(__file__).resolve().parents[2]
SIGLIP = {"hf_vision": {"config": {"model_type": "siglip_vision_model", **SMALL}}}
LORA = {"rank": 2, "alpha": 4, "dropout": 0.0}
FROZEN = {"frozen": True}
BLIP_2 = replace(TINY, abstractor={"q_former": {"queries": 4, "width": 32, "layers": 2, "heads": 2, "mlp_width": 32}})
IDEFICS_2 = replace(
    TINY,
    encoder=SIGLIP,
    abstractor={"gated_resampler": {"latents": 4, "layers": 1, "heads": 4, "key_heads": 2, "head_width": 8}},
)
CROSS = replace(TINY, fusion={"cross_attention": {"every": 1}})
ANYRES = replace(TINY, preprocessing={"anyres": {"tiles": [[1, 2], [2, 1]]}})

STRATEGIES = {  # name: model, its parts, and patterns of all weights that are trained
    "MiniGPT-4": (
        BLIP_2,
        {"encoder": FROZEN, "language": FROZEN, "abstractor": {**FROZEN, "rules": [{"weights": "project", "frozen": False}]}},
        ["abstractor.project.*"],
    ),
    "BLIP-2, stages 1 and 2": (BLIP_2, {"encoder": FROZEN, "language": FROZEN}, ["abstractor.*"]),
    "Qwen2-VL, stage 1": (QWEN_2, {"abstractor": FROZEN, "language": FROZEN}, ["encoder.*"]),
    "Qwen2-VL, stage 2": (QWEN_2, {}, ["*"]),
    "Qwen2-VL, stage 3": (QWEN_2, {"encoder": FROZEN}, ["abstractor.*", "language.*"]),
    "Qwen2-VL, stage 3 with a frozen merger": (QWEN_2, {"encoder": FROZEN, "abstractor": FROZEN}, ["language.*"]),
    "Idefics2": (
        IDEFICS_2,
        {"encoder": {"lora": {**LORA, "layers": ["*.q_proj", "*.v_proj"]}}, "language": {"lora": LORA}},
        ["abstractor.*", "encoder.*.[qv]_proj.lora_*", "language.*_proj.lora_*"],
    ),
    "LoRA with norms": (
        TINY,
        {"encoder": FROZEN, "language": {"lora": LORA, "rules": [{"weights": "norms", "frozen": False}]}},
        ["abstractor.*", "language.*norm.weight", "language.*.lora_*"],
    ),
    "LoRA with two layers trained fully or frozen": (
        TINY,
        {
            "encoder": FROZEN,
            "language": {
                "lora": LORA,
                "rules": [
                    {"weights": "model.layers.0", "frozen": True}, {"weights": "model.layers.1.mlp.up_proj", "frozen": False},
                ],
            },
        },
        ["abstractor.*", "language.*.layers.1.*.lora_*", "language.model.layers.1.mlp.up_proj.weight"],
    ),
    "norms only": (
        TINY,
        {name: {**FROZEN, "rules": [{"weights": "norms", "frozen": False}]} for name in ("encoder", "language")}
        | {"abstractor": FROZEN},
        ["encoder.*.ln_*", "language.*norm.weight"],
    ),
    "biases only": (
        TINY,
        {"encoder": {**FROZEN, "rules": [{"weights": "biases", "frozen": False}]}, "abstractor": FROZEN, "language": FROZEN},
        ["encoder.*.bias", "encoder.*.in_proj_bias"],
    ),
    "the last blocks of the tower": (
        TINY,
        {
            "encoder": {**FROZEN, "rules": [{"weights": "visual.transformer.resblocks.[1-9]", "frozen": False}]},
            "abstractor": FROZEN, "language": FROZEN,
        },
        ["encoder.visual.transformer.resblocks.1.*"],
    ),
    "Llama 3.2 Vision": (CROSS, {"encoder": FROZEN, "abstractor": FROZEN, "language": FROZEN}, ["fusion.*"]),
    "the newline of tiles": (
        ANYRES,
        {"encoder": FROZEN, "language": FROZEN,
         "abstractor": {"rules": [{"weights": "[02]", "frozen": True}, {"weights": "arrangement.newline", "lr": 1.0}]}},
        ["arrangement.newline"],
    ),
    "a later rule overrides an earlier one": (
        TINY,
        {
            "encoder": {**FROZEN, "rules": [{"weights": "*.0", "frozen": False}, {"weights": "norms", "frozen": True}]},
            "abstractor": FROZEN, "language": FROZEN,
        },
        ["encoder.*.0.attn.*", "encoder.*.0.mlp.*"],
    ),
}  # fmt: skip


def trained_names(model):
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize("name", STRATEGIES)
def test_exactly_the_weights_of_a_strategy_are_trained_and_get_a_gradient(name):
    recipe, parts, patterns = STRATEGIES[name]
    model = tiny_model(recipe)
    apply_parts(model.parts(), build_parts(parts, "parts"))
    randomise(nn.ParameterList(updates_of(model).values()), seed=3)
    wanted = {n for n, _ in model.named_parameters() if any(fnmatchcase(n, p) for p in patterns)}
    assert all(any(fnmatchcase(n, p) for n in wanted) for p in patterns)
    assert trained_names(model) == wanted
    if recipe is not ANYRES:  # its newline needs several tiles
        model.train().logits(batch_of(model)).square().sum().backward()
        assert {n for n, w in model.named_parameters() if w.grad is not None} == wanted


def test_lora_with_full_weights_is_merged_without_a_change_of_the_logits():
    plain = tiny_model()
    names, batch = list(plain.state_dict()), batch_of(plain)
    for name, updates in (("LoRA with norms", 14), ("LoRA with two layers trained fully or frozen", 6)):
        _, parts, _ = STRATEGIES[name]
        model = tiny_model()
        apply_parts(model.parts(), build_parts(parts, "parts"))
        randomise(nn.ParameterList([w for w in model.parameters() if w.requires_grad]), seed=3)
        before = logits(model, batch)
        assert merge_lora(model) == updates and list(model.state_dict()) == names
        torch.testing.assert_close(logits(model, batch), before, rtol=1e-4, atol=1e-5)


def groups_of(model, parts):
    """Return each group of the optimizer as (label, rate, decay) with the names of its weights."""
    table = build_parts(parts, "parts")
    apply_parts(model.parts(), table)
    names = {id(weight): name for name, weight in model.named_parameters()}
    groups = parameter_groups(model.parts(), table, 1e-3, 0.1)
    return groups, {
        (g["label"], g["lr"], g["weight_decay"]): sorted(names[id(weight)] for weight in g["params"]) for g in groups
    }


def test_rules_set_rates_and_decay_and_a_group_holds_the_weights_with_the_same_values():
    rules = [
        {"weights": "visual.transformer.resblocks.0", "lr": 1e-6},
        {"weights": ["norms", "visual.class_embedding"], "lr": 1e-5},
        {"weights": ["*.c_fc", "visual.positional_embedding"], "weight_decay": 0.0},
    ]
    model = tiny_model()
    groups, found = groups_of(model, {"encoder": {"lr": 1e-4, "rules": rules}, "abstractor": FROZEN, "language": FROZEN})
    block, norms = "encoder/visual.transformer.resblocks.0", "encoder/norms, visual.class_embedding"
    assert {key: len(names) for key, names in found.items()} == {
        ("encoder", 1e-4, 0.1): 4, ("encoder", 1e-4, 0.0): 2 + 4, (block, 1e-6, 0.1): 3, (block, 1e-6, 0.0): 1 + 4,
        (norms, 1e-5, 0.0): 2 + 2 * 4 + 1,
    }  # fmt: skip
    resblock = "encoder.visual.transformer.resblocks.0."
    assert found[block, 1e-6, 0.1] == [
        f"{resblock}attn.in_proj_weight", f"{resblock}attn.out_proj.weight", f"{resblock}mlp.c_proj.weight"
    ]  # fmt: skip
    assert sorted(n for names in found.values() for n in names) == sorted(trained_names(model))
    rates = set_learning_rates(make_optimizer(groups, Optimizer()), 0.5)
    assert rates == {"encoder": 5e-5, block: 5e-7, norms: 5e-6}


def test_the_updates_of_lora_have_the_rate_of_the_weight_that_they_update():
    model = tiny_model()
    rules = [{"weights": "model.layers.0", "lr": 1e-6}]
    _, found = groups_of(model, {"encoder": FROZEN, "abstractor": FROZEN, "language": {"lora": LORA, "rules": rules}})
    assert {key: len(names) for key, names in found.items()} == {
        ("language/model.layers.0", 1e-6, 0.1): 14, ("language", 1e-3, 0.1): 14,
    }  # fmt: skip
    assert all(".layers.0." in name for name in found["language/model.layers.0", 1e-6, 0.1])


def test_every_example_of_the_documentation_is_read():
    text = (ROOT / "docs/training.md").read_text()
    (examples,) = re.findall(r"^## Which weights are trained\n.*?^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    read = [build_parts(tree["parts"], "parts") for tree in yaml.safe_load_all(examples)]
    assert len(read) == 4 and all(any(part.rules for part in parts.values()) for parts in read)


def test_a_pattern_matches_a_whole_name_or_the_whole_name_of_a_module():
    name = "model.layers.10.mlp.up_proj.weight"
    for pattern in ("model", "*.layers.10", "*.layers.1[0-9]", "model.layers.10.*", "*.up_proj", "*.weight", "*", name):
        assert matches(pattern, name), pattern
    for pattern in ("layers", "*.layers.1", "*.layers.?", "up_proj", "proj.weight", "*.UP_proj", "model.layers.10."):
        assert not matches(pattern, name), pattern


def test_a_tied_weight_is_selected_by_each_of_its_names():
    config = {**TINY.language["hf_causal"]["config"], "tie_word_embeddings": True}
    recipe = replace(TINY, language={"hf_causal": {"config": config}})
    for pattern in ("lm_head", "model.embed_tokens"):
        model = tiny_model(recipe)
        rules = [{"weights": pattern, "frozen": False}]
        parts = {"encoder": FROZEN, "abstractor": FROZEN, "language": {**FROZEN, "rules": rules}}
        apply_parts(model.parts(), build_parts(parts, "parts"))
        assert trained_names(model) == {"language.model.embed_tokens.weight"}


@pytest.mark.parametrize(
    ("recipe", "parts", "message"),
    [
        (
            TINY, {"language": {"rules": [{"weights": "norms", "lr": 1.0}, {"weights": "q_proj", "lr": 1.0}]}},
            "language: rules, 2: no weight matches 'q_proj'. Did you mean '*.q_proj'?",
        ),
        (
            TINY, {"language": {"rules": [{"weights": "*.q_prj", "lr": 1.0}]}},
            "language: rules, 1: no weight matches '*.q_prj'. Did you mean '*.q_proj'?",
        ),
        (
            TINY, {"language": {"rules": [{"weights": ["norms", "model.layer.*.mlp"], "lr": 1.0}]}},
            "language: rules, 1: no weight matches 'model.layer.*.mlp'. Did you mean 'model.layers.*.mlp'?",
        ),
        (
            TINY, {"language": {"rules": [{"weights": "norm", "lr": 1.0}]}},
            "language: rules, 1: no weight matches 'norm'. Did you mean 'norms'?",
        ),
        (
            TINY, {"language": {"rules": [{"weights": "biases", "lr": 1.0}]}},
            "language: rules, 1: no weight matches 'biases'. Some names are model.embed_tokens.weight, ",
        ),
        (
            TINY, {"encoder": {"rules": [{"weights": "*.resblocks.2", "lr": 1.0}]}},
            "encoder: rules, 1: '*.resblocks.2' matches only 12 buffers, which are never trained; the first is"
            " visual.transformer.resblocks.2.ln_1.weight.",
        ),
        (
            TINY, {"language": {"lora": LORA, "rules": [{"weights": "norms", "lr": 1.0}]}},
            "language: rules, 1: 'norms' matches only frozen weights, which cannot have `lr` or `weight_decay`. Add",
        ),
        (
            TINY, {"language": {"rules": [{"weights": "norms", "weight_decay": 1.0}]}},
            "language: rules, 1: 'norms' matches only vectors, and weight decay acts on matrices.",
        ),
        (
            TINY, {"language": {"lora": {**LORA, "layers": ["*.q_proj", "*.vproj"]}}},
            "language: lora, layers: no linear layer matches '*.vproj'. Did you mean '*.v_proj'?",
        ),
        (
            TINY, {"language": {"lora": LORA, "rules": [{"weights": "*", "frozen": False}]}},
            "language: lora: LlamaForCausalLM has no linear layer to update.",
        ),
    ],
)  # fmt: skip
def test_a_rule_without_an_effect_is_refused_with_its_place_and_a_suggestion(recipe, parts, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        apply_parts(tiny_model(recipe).parts(), build_parts(parts, "parts"))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"rules": [{"weights": "a"}]}, "encoder, rules, 1: Rule: a rule must set `frozen`, `lr` or `weight_decay`"),
        ({"rules": [{"weights": "a", "frozen": True, "lr": 1.0}]}, "rules, 1: Rule: frozen weights cannot have `lr` or"),
        ({"rules": [{"weights": [], "lr": 1.0}]}, "rules, 1: Rule: weights must be a pattern of names, or a list of"),
        ({"rules": [{"weights": ["a", ""], "lr": 1.0}]}, "rules, 1: Rule: weights must be a pattern of names, or a list of"),
        ({"rules": [{"weights": "a", "lr": 1.0}, {"weights": 3, "lr": 1.0}]}, "encoder, rules, 2: Rule.weights"),
        ({"rules": [{"pattern": "a", "lr": 1.0}]}, "rules, 1: Rule has no parameter 'pattern'"),
        ({"rules": {"weights": "a", "lr": 1.0}}, "encoder: Part.rules = "),
        ({"frozen": True, "rules": [{"weights": "a", "lr": 1.0}]}, "encoder: Part: a frozen part cannot have `lr`, `lora` or"),
        ({"frozen": True, "lr": 1.0}, "encoder: Part: a frozen part cannot have `lr`, `lora` or `rules`, unless a rule sets"),
        (
            {"frozen": True, "lora": {}, "rules": [{"weights": "a", "frozen": False}]},
            "encoder: Part: a frozen part cannot have `lora`. Remove `frozen`",
        ),
        ({"lora": {"layers": ""}}, "encoder, lora: Lora: layers must be a pattern of names, or a list of patterns, not ''"),
    ],
)
def test_a_mistake_in_a_rule_is_reported_when_the_recipe_is_read(part, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        build_parts({"encoder": part}, "r.yaml, parts")


def test_rules_or_lora_behind_closed_gates_are_refused_unless_a_rule_trains_the_gates():
    rest = {"encoder": FROZEN, "abstractor": FROZEN, "language": FROZEN}
    gates, query = {"weights": "*_gate", "frozen": False}, {"weights": "*.query", "frozen": False}
    for fusion in ({"frozen": True, "rules": [query]}, {"lora": LORA}):
        for more in ([], [gates]):
            model = tiny_model(CROSS)
            table = build_parts({**rest, "fusion": {**fusion, "rules": [*fusion.get("rules", []), *more]}}, "parts")
            with torch.no_grad():
                model.fusion.layers[1].mlp_gate.zero_()
            apply_parts(model.parts(), table)
            if more:
                check_gates(model.parts(), table)
                continue
            with pytest.raises(ValueError, match=r"^fusion: (lora|rules): 1 gate is 0, the first is layers.1.mlp_gate\."):
                check_gates(model.parts(), table)
