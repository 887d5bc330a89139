"""LoRA: merged and unmerged models give the same logits, and a merged one is a plain model again."""

import torch

from tests.train.tiny import pack, randomise, sample, tiny_model
from vlmdata_train.lora import merge_lora
from vlmdata_train.optim import apply_parts
from vlmdata_train.recipe import Lora, Part


def test_merged_equals_unmerged_and_only_the_updates_are_trained() -> None:
    model = tiny_model()
    names = list(model.state_dict())
    plain = model.logits(pack(model, [sample(model, 9, 1, 1)])).detach()
    apply_parts(model.parts(), {"language": Part(lora=Lora(rank=4, alpha=8)), "encoder": Part(frozen=True)})
    model.eval()
    updates = [name for name, weight in model.named_parameters() if "lora_" in name]
    open_weights = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert updates
    assert set(open_weights) - set(updates) == {name for name, _ in model.named_parameters() if name.startswith("abstractor")}
    with torch.no_grad():
        torch.testing.assert_close(model.logits(pack(model, [sample(model, 9, 1, 1)])), plain)  # it starts at nothing
        randomise(torch.nn.ParameterList([dict(model.named_parameters())[name] for name in updates]), seed=3)
        samples = [sample(model, 9, 1, 1), sample(model, 12, 1, 2)]
        unmerged = model.logits(pack(model, samples))
        assert merge_lora(model.language) * 2 == len(updates)
        merged = model.logits(pack(model, samples))
    assert (unmerged[:, : plain.shape[1]] - plain).abs().max() > 0.1
    torch.testing.assert_close(merged, unmerged, rtol=1e-4, atol=1e-5)
    assert list(model.state_dict()) == names
