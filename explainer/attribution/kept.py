"""A model in evaluation mode for a while, used by one thread at a time, and given back as it was.

The locks are kept here, by module, and not in the explainers, which can be pickled and copied. A model's modules are
locked one by one, so that two models that share some of them wait for each other as well.
"""

import contextlib
import random
import sys
import threading
import weakref

import numpy as np
import torch
from torch import nn

_LOCKS = weakref.WeakKeyDictionary()
_MAKING = threading.Lock()


@contextlib.contextmanager
def locked(model):
    """No other thread is within this context for the same model, or for one that shares a module with it."""
    with _MAKING:
        modules = sorted(model.modules(), key=id)
        locks = [_LOCKS.setdefault(module, threading.RLock()) for module in modules]
    with contextlib.ExitStack() as stack:
        for lock in locks:
            stack.enter_context(lock)
        yield


@contextlib.contextmanager
def evaluating(model, head):
    """The model in evaluation mode; afterwards every module's mode is as it was.

    `train` is called on modules that are in training alone, as that of some does more than set a flag. Buffers, the
    parameters of the head and of such modules are afterwards what they were, to the bit. Yields what puts back the
    changes that passes of the model have made to them.
    """
    with locked(model):
        modes = [(module, module.training) for module in model.modules()]
        own = [module for module, training in modes if training and does_more(module)]
        before = [(*entry, entry[2].detach().clone()) for entry in _tensors(model, {head, *own})]
        try:
            _switch(modes, False)
            now = [(*entry, entry[2].detach().clone()) for entry in _tensors(model, {head, *own})]
            yield lambda: put_back(now)
        finally:
            try:
                _switch(modes, True)
            finally:
                for module, mode in modes:
                    module.training = mode
                put_back(before)


def does_more(module):
    """Whether a module's `train` is its own, and may do more than set a flag."""
    return type(module).train is not nn.Module.train or "train" in vars(module)


def _switch(modes, mode):
    """Call train(mode) on the outermost modules that were in training; those that were not keep their own."""
    standing = [module for module, training in modes if not training and does_more(module)]
    hidden = [(module, vars(module).get("train")) for module in standing]
    for module in standing:
        vars(module)["train"] = _passing(module)
    try:
        done = set()
        for module, training in modes:
            if training and module not in done:
                module.train(mode)
                done.update(module.modules())
    finally:
        for module, train in hidden:
            del vars(module)["train"]
            if train is not None:
                vars(module)["train"] = train


def _passing(module):
    def train(mode=True):
        for child in module.children():
            child.train(mode)
        return module

    return train


def _tensors(model, modules):
    """(dictionary, name, tensor) of all buffers, and of the own parameters of some modules."""
    for module in model.modules():
        inside = module in modules or any(part in modules for part in module.children() if _parametrizes(module))
        for held in (module._buffers, module._parameters) if inside else (module._buffers,):
            for name, tensor in held.items():
                if tensor is not None and not nn.parameter.is_lazy(tensor):
                    yield held, name, tensor


def _parametrizes(module):
    return hasattr(module, "parametrizations")


@torch.no_grad()
def put_back(before):
    """Put tensors (dictionary, name, tensor, copy) back where they were, with the numbers that they had."""
    for held, name, tensor, copy in before:
        held[name] = tensor
        if tensor.shape != copy.shape:
            tensor.data = copy
        elif tensor.layout != torch.strided or not torch.equal(tensor.detach(), copy):
            tensor.detach().copy_(copy)


@contextlib.contextmanager
def state(model):
    """The model alone in this thread; afterwards its parameters, buffers and extra state are as they were."""
    with locked(model):
        before = [(*entry, entry[2].detach().clone()) for entry in _tensors(model, set(model.modules()))]
        extra = [
            (module, module.get_extra_state())
            for module in model.modules()
            if type(module).get_extra_state is not nn.Module.get_extra_state
        ]
        try:
            yield
        finally:
            put_back(before)
            for module, value in extra:
                module.set_extra_state(value)


@contextlib.contextmanager
def randomness(loader):
    """The states of all generators of random numbers, and of those that a loader holds, are afterwards as they were."""
    held = [loader, *(getattr(loader, name, None) for name in ("sampler", "batch_sampler"))]
    held.append(getattr(held[-1], "sampler", None))
    values = {id(value): value for owner in held if hasattr(owner, "__dict__") for value in vars(owner).values()}
    before = [_saved(value) for value in values.values()]
    python, array, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(array)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        for put in before:
            put()


def _saved(value):
    """What gives a generator its present state back."""
    if isinstance(value, torch.Generator):
        at = value.get_state()
        return lambda: value.set_state(at)
    if isinstance(value, (np.random.Generator, np.random.RandomState)):
        if isinstance(value, np.random.RandomState):
            at = value.get_state()
            return lambda: value.set_state(at)
        at = value.bit_generator.state
        return lambda: setattr(value.bit_generator, "state", at)
    if isinstance(value, random.Random):
        at = value.getstate()
        return lambda: value.setstate(at)
    return lambda: None


def eager():
    """A context in which what was compiled runs as it was written, so that hooks are called."""
    stance = getattr(torch.compiler, "set_stance", None)
    if stance is None or "torch._dynamo" not in sys.modules:
        return contextlib.nullcontext()
    return stance("force_eager")
