"""The chunked loss is the plain loss, on answers only, inside each sample."""

import torch
from torch.nn import functional as F

from vlmdata_train.loss import IGNORE, answer_labels, answer_positions, token_losses


def test_loss_and_gradients_equal_the_plain_ones_for_any_chunk():
    torch.manual_seed(0)
    hidden, weight = torch.randn(37, 16, requires_grad=True), torch.randn(101, 16, requires_grad=True)
    labels = torch.randint(0, 101, (37,))
    plain = F.cross_entropy(hidden @ weight.T, labels, reduction="sum")
    wanted = torch.autograd.grad(3 * plain, (hidden, weight))
    for chunk in (1, 8, 37, 1000):
        total, each = token_losses(hidden, weight, labels, chunk=chunk)
        assert torch.allclose(total, plain, rtol=1e-6)
        assert torch.allclose(each.sum(), plain, rtol=1e-6) and not each.requires_grad
        for got, want in zip(torch.autograd.grad(3 * total, (hidden, weight)), wanted, strict=True):
            assert torch.allclose(got, want, atol=1e-5)


def test_a_frozen_output_layer_gets_no_gradient_and_its_input_does():
    hidden, weight = torch.randn(5, 4, requires_grad=True), torch.randn(7, 4)
    token_losses(hidden, weight, torch.arange(5))[0].backward()
    assert hidden.grad is not None and weight.grad is None


def test_no_answer_at_all_gives_a_zero_loss_with_zero_gradients():
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


def test_logits_of_all_tokens_never_exist():
    """The largest tensor made has `chunk` rows of the vocabulary, not all 4,096."""
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
        token_losses(hidden, weight, torch.zeros(4096, dtype=torch.int64), chunk=256)[0].backward()
    assert largest.rows == 256
