"""The model and its optimizer, distributed over the ranks, with recomputation, compilation and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn

from vlmdata.step import RecipeError
from vlmdata_train.distributed import Ranks, distribute, full_tensor, syncing
from vlmdata_train.loop.memory import CudaMemory, fit_memory
from vlmdata_train.loop.model_flops import ModelFlops
from vlmdata_train.loop.optim import make_optimizer, optimizer_bytes, parameter_groups
from vlmdata_train.loop.train_step import MicroBatch, ModelWithLoss
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.repeated_blocks import blocks_of, compile_blocks, recompute
from vlmdata_train.recipe import Recipe, Speed


def check_speed(speed: Speed, ranks: Ranks) -> None:
    """Raise RecipeError if this device does not support the recipe's `speed`."""
    if speed.compile and ranks.device.type == "cpu":
        raise RecipeError(
            "speed.compile must be false on a CPU, where attention loops over segments and would be compiled for each batch"
        )


class Learner:
    """Trains a model: it holds the model with its loss, and the optimizer. Every rank must call every method.

    `read` gives the model's weights their values; see `setup.make_model`.
    """

    def __init__(self, model: VisionLanguageModel, recipe: Recipe, ranks: Ranks, read: Callable[[], None]) -> None:
        # The order matters: freeze, count FLOPs, compile, distribute, make the optimizer (distribution and `read` replace
        # parameters).
        self.recipe, self.ranks = recipe, ranks
        self.model_with_loss = ModelWithLoss(
            model, chunk=recipe.speed.loss_chunk, autocast=recipe.speed.precision == "autocast"
        )
        self.flops = ModelFlops(model)
        self.layers = blocks_of(model.language)
        if recipe.speed.recompute == "all":
            recompute(self.layers, [True] * len(self.layers))
        if recipe.speed.compile:
            compile_blocks(self.layers + blocks_of(model.encoder))
        self.module = distribute(self.model_with_loss, self.layers, ranks, recipe.speed.parallel, read)
        groups = parameter_groups(model.parts(), recipe.parts, recipe.lr, recipe.optimizer.weight_decay)
        self.optimizer = make_optimizer(groups, recipe.optimizer)
        self.weights = [p for group in self.optimizer.param_groups for p in group["params"]]

    def fit(self, micro: MicroBatch) -> int:
        """Choose as few blocks to recompute as the GPU's memory allows, and return their number.

        The memory is measured on one micro-batch.
        """
        state_bytes = optimizer_bytes(self.weights, self.recipe.optimizer.compact)
        return fit_memory(self.layers, self.module, micro, state_bytes, CudaMemory(self.ranks.device), self.ranks)

    def add_gradients(self, micros: list[MicroBatch], answers: float) -> list[Tensor]:
        """Run the forward and backward passes of a step's micro-batches, and return the summed loss of each sample.

        `answers` is the number of answer tokens in the step over all ranks. The result has a tensor for each micro-batch, which
        is on the device and has shape (samples,).
        """
        shares = []
        for number, micro in enumerate(micros):
            with syncing(self.module, number == len(micros) - 1):
                summed, of_sample = self.module(micro)
                # Every answer token of the step has the same weight, for any number of micro-batches and ranks.
                (summed * (self.ranks.world / max(answers, 1))).backward()
            shares.append(of_sample)
        return shares

    def check_gradients(self) -> None:
        """Raise RuntimeError if a trained weight has no gradient.

        Without this check, the optimizer would leave the weight unchanged without an error.
        """
        named = list(self.model_with_loss.model.named_parameters())
        without = [name for name, p in named if p.requires_grad and p.grad is None]
        if without:
            raise RuntimeError(f"{len(without)} weights should be trained but have no gradient; the first is {without[0]}")
        frozen = [name for name, p in named if not p.requires_grad and p.grad is not None]
        assert not frozen, f"the frozen weight {frozen[0]} has a gradient"

    def clip(self) -> float:
        """Clip the gradients to the recipe's norm, and return the norm that they had before."""
        return float(full_tensor(nn.utils.clip_grad_norm_(self.weights, self.recipe.optimizer.clip or math.inf)))
