"""Build a model without memory for its weights. The weights get memory later, when the model is frozen, cast and sharded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils.weak import WeakTensorKeyDictionary

Module = TypeVar("Module", bound=nn.Module)
_ON = ContextVar("placeholders", default=False)  # whether parameters become placeholders now


@contextmanager
def placeholders() -> Iterator[None]:
    """Turn each parameter that a module gets in this block into a placeholder, which is on the meta device and has no memory.

    Buffers keep their values, because no file has computed buffers, such as rotary frequencies. Tied weights stay tied. At
    most one parameter has memory at a time, except in `in_full`.
    """
    known = WeakTensorKeyDictionary()  # parameter: its placeholder, for parameters that several modules share

    def replace(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta or not _ON.get():
            return parameter
        if parameter not in known:
            known[parameter] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
            vars(known[parameter]).update(vars(parameter))
        return known[parameter]

    hook = register_module_parameter_registration_hook(replace)  # type: ignore[arg-type]  # its type has no result
    token = _ON.set(True)
    try:
        yield
    finally:
        _ON.reset(token)
        hook.remove()


def are_on() -> bool:
    """Return whether parameters become placeholders now, so that published weights need not be read."""
    return _ON.get()


def in_full(build: Callable[[], Module]) -> Module:
    """Return a module that is built with real weights, which then become placeholders if `placeholders` are on.

    For code that may read or move the weights that it has made.
    """
    token = _ON.set(False)
    try:
        module = build()
    finally:
        _ON.reset(token)
    for owner in module.modules() if are_on() else ():
        for name, parameter in owner.named_parameters(recurse=False, remove_duplicate=False):
            setattr(owner, name, parameter)  # registers it again
    return module


def allocate(module: nn.Module, device: torch.device) -> None:
    """Give each placeholder in a module memory on the device, without values. Of a sharded weight, only this rank's share.

    All other parameters and buffers move to the device. Unused weights of a tower are buffers that are placeholders too.
    """
    made: dict[int, tuple[Tensor, Tensor]] = {}  # by the id of the old tensor, which is kept so that no other gets this id

    def real(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            new = torch.empty_like(tensor, device=device) if tensor.is_meta else tensor.detach().to(device)
            is_weight = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = (tensor, nn.Parameter(new, tensor.requires_grad) if is_weight else new)
        return made[id(tensor)][1]

    for owner in module.modules():
        weights = owner.named_parameters(recurse=False, remove_duplicate=False)
        buffers = owner.named_buffers(recurse=False, remove_duplicate=False)
        for name, tensor in [*weights, *buffers]:
            assert not (tensor.is_meta and name in owner._non_persistent_buffers_set), f"no file has the buffer {name}"
            if tensor.is_meta or tensor.device != device:
                setattr(owner, name, real(tensor))


def stand_ins(module: nn.Module) -> dict[str, Tensor]:
    """Return random values for each placeholder in a module, by name, to run it with `torch.func.functional_call`.

    The rows of a value overlap in memory, so all values together are small. Matrices have a standard deviation of 0.02, and
    vectors are about 1. The random state of torch does not change.
    """
    device = torch.empty(0).device
    generator = torch.Generator(device).manual_seed(0)

    def values(shape: torch.Size, dtype: torch.dtype) -> Tensor:
        strides = [2 * number + 1 for number in reversed(range(len(shape)))]  # of a matrix: 3 and 1
        size = 1 + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
        numbers = 0.02 * torch.randn(size, generator=generator, device=device)
        return (numbers if len(shape) > 1 else 1 + numbers).to(dtype).as_strided(shape, strides)

    return {name: values(weight.shape, weight.dtype) for name, weight in module.named_parameters() if weight.is_meta}
