"""The chunked loss equals the plain loss, counts answers only, and stays within each sample."""

import pytest
import torch
from torch.nn import functional as F

from vlmdata_train.loop.loss import answer_labels, answer_positions, token_losses
from vlmdata_train.model.batch import IGNORE
from vlmdata_train.model.head import Head

HEADS = {
    "plain": Head(), "capped": Head(cap=3.0), "scaled": Head(scale=0.25), "scaled and capped": Head(scale=2.0, cap=5.0),
}  # fmt: skip


def plain_loss(hidden, weight, bias, labels, head):
    """Return the cross-entropy of all logits at once, as transformers computes it."""
    logits = F.linear(hidden, weight, bias) * head.scale
    if head.cap is not None:
        logits = torch.tanh(logits / head.cap) * head.cap
    return F.cross_entropy(logits.float(), labels, reduction="sum")


def output_layer(dtype=torch.float32):
    """Return 37 tokens of width 16 and a vocabulary of 101 words, with logits large enough for the caps to matter."""
    torch.manual_seed(0)
    shapes = (37, 16), (101, 16), (101,)
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes], torch.randint(0, 101, (37,))


@pytest.mark.parametrize("has_bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_loss_and_gradients_equal_the_plain_ones_for_any_chunk(head, has_bias):
    (hidden, weight, bias), labels = output_layer()
    inputs = (hidden, weight, bias) if has_bias else (hidden, weight)
    plain = plain_loss(hidden, weight, bias if has_bias else None, labels, head)
    wanted = torch.autograd.grad(3 * plain, inputs)
    for chunk in (1, 8, 37, 1000):
        total, each = token_losses(hidden, weight, labels, bias=bias if has_bias else None, head=head, chunk=chunk)
        assert torch.allclose(total, plain, rtol=1e-6)
        assert torch.allclose(each.sum(), plain, rtol=1e-6) and not each.requires_grad
        for got, want in zip(torch.autograd.grad(3 * total, inputs), wanted, strict=True):
            assert torch.allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_loss_and_gradients_in_bf16_are_exact_up_to_rounding(head):
    inputs, labels = output_layer(torch.bfloat16)
    exact = [t.detach().float().requires_grad_() for t in inputs]
    wanted_loss = plain_loss(*exact, labels, head)
    hidden, weight, bias = inputs
    total, _ = token_losses(hidden, weight, labels, bias=bias, head=head, chunk=8)
    assert torch.allclose(total, wanted_loss, rtol=0.01)
    wanted = torch.autograd.grad(wanted_loss, exact)
    for got, want in zip(torch.autograd.grad(total, inputs), wanted, strict=True):
        assert got.dtype == torch.bfloat16 and (got.float() - want).norm() < 0.01 * want.norm()


def test_a_frozen_output_layer_passes_a_gradient_only_to_its_input():
    hidden, weight = torch.randn(5, 4, requires_grad=True), torch.randn(7, 4)
    token_losses(hidden, weight, torch.arange(5))[0].backward()
    assert hidden.grad is not None and weight.grad is None


def test_only_a_bias_may_be_trained():
    hidden, weight, bias = torch.randn(5, 4), torch.randn(7, 4), torch.randn(7, requires_grad=True)
    token_losses(hidden, weight, torch.arange(5), bias=bias)[0].backward()
    plain = torch.autograd.grad(F.cross_entropy(F.linear(hidden, weight, bias), torch.arange(5), reduction="sum"), bias)
    assert torch.allclose(bias.grad, plain[0], atol=1e-6)


def test_a_batch_without_answers_has_zero_loss_and_zero_gradients():
    hidden, weight = torch.randn(0, 4, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    total, _ = token_losses(hidden, weight, torch.zeros(0, dtype=torch.int64))
    total.backward()
    assert total.item() == 0 and weight.grad is not None and not weight.grad.any()


def test_the_last_token_of_a_sample_does_not_predict_the_first_of_the_next():
    labels = torch.tensor([[IGNORE, 5, 6, 7, 8, IGNORE]])
    segments = torch.tensor([[1, 1, 1, 2, 2, 0]], dtype=torch.int32)
    predicts = answer_positions(labels, segments)
    assert predicts.tolist() == [[True, True, False, True, False, False]]
    assert answer_labels(labels, predicts).tolist() == [5, 6, 8]


def test_the_logits_of_all_tokens_are_never_in_memory_at_once():
    """The largest tensor has `chunk` rows of the vocabulary, not all 4,096."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        rows = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple) else (out,):
                if isinstance(tensor, torch.Tensor) and tensor.ndim == 2 and tensor.shape[1] == 999:
                    self.rows = max(self.rows, tensor.shape[0])
            return out

    hidden, weight = torch.randn(4096, 8, requires_grad=True), torch.randn(999, 8, requires_grad=True)
    with Largest() as largest:
        bias, head = torch.randn(999, requires_grad=True), Head(scale=2.0, cap=30.0)
        token_losses(hidden, weight, torch.zeros(4096, dtype=torch.int64), bias=bias, head=head, chunk=256)[0].backward()
    assert largest.rows == 256
