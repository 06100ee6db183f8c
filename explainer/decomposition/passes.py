"""One pass of a model over split inputs, through the model's own forward, which leaves nothing behind."""

import contextlib
import sys
import threading

import torch
from torch import nn

from config import UserError
from explainer.attribution import kept
from explainer.decomposition import registry, states
from explainer.decomposition.rules.pooling import Picks
from explainer.decomposition.scores import TOLERANCES
from explainer.decomposition.split import UnsupportedOp, splits
from models.training import out_of_memory

_lock = threading.RLock()  # a pass changes the modules of a model for a while


def _called(module, name, args, kwargs, forward):
    """A module on Splits: by the rule of its class, or by its own forward, whose operations have theirs."""
    found, some = registry.module_rule(module), next(splits((args, kwargs)), None)
    if found is None or some is None:
        try:
            return forward(*args, **kwargs)
        except UnsupportedOp as error:
            raise UnsupportedOp(f"{name or 'the model'} ({type(module).__name__}): {error}") from None
    result = found(some.rules, module, *args, **kwargs)
    some.rules.record(name, result)
    return result


def behind(model):
    """The model that torch.compile was given, or the model. Raises UserError for none, and for compiled code."""
    model = getattr(model, "_orig_mod", model)
    if not isinstance(model, nn.Module):
        raise UserError(f"the model is a {type(model).__name__}: give a torch.nn.Module")
    for name, module in model.named_modules():
        kind, at = type(module), f" ({name})" if name else ""
        if isinstance(module, torch.jit.ScriptModule):
            raise UserError(f"the model{at} is a {kind.__name__} of TorchScript: give the torch.nn.Module behind it")
        if ".quantized" in kind.__module__ and kind.__module__.startswith("torch."):
            raise UserError(f"the model{at} is quantized ({kind.__name__}): give the model in floating point")
    return model


def called(model, args, kwargs=None):
    """A model's output on copies of its inputs, which a forward may change; attributes that it stores are put back."""
    own = copied(args), copied(kwargs or {})
    with states.unchanged(model) if isinstance(model, nn.Module) else contextlib.nullcontext():
        return model(*own[0], **own[1])


def copied(value):
    """Tensors in arguments as copies."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if type(value) in (tuple, list):
        return type(value)(copied(item) for item in value)
    return {key: copied(item) for key, item in value.items()} if isinstance(value, dict) else value


def run(model, args, own_rules, rules, kwargs=None):
    """The model's output for inputs with Splits among them.

    own_rules: {module: function(module, *args)} that stand in for modules of this model, such as its embedding.
    """
    with unfused(), _explained(UnsupportedOp, "the model's forward does with an activation what has no rule"):
        try:
            with states.unchanged(model), patched(model, own_rules, rules.held):
                return rules.held.swapped(model(*args, **(kwargs or {})))
        finally:
            rules.held.close()


@contextlib.contextmanager
def _explained(kind, said):
    """Errors of a forward as one of ours, in a line; running out of memory stays what it is."""
    try:
        yield
    except UserError:
        raise
    except (RuntimeError, TypeError, AttributeError, ValueError, LookupError) as error:
        if out_of_memory(error):
            raise
        raise kind(f"{said}: {' '.join(str(error).split())[:200]}") from error


@contextlib.contextmanager
def patched(model, own_rules, held=None):
    """The model's modules that have rules, with those in place of their forward; afterwards as they were."""
    changed = []
    try:
        for name, module in model.named_modules():
            own, before = own_rules.get(module), vars(module).get("forward")
            if own is None and registry.module_rule(module) is None and any(module.children()):
                continue
            forward = module.forward
            module.forward = _replaced(module, name, forward, own, held)
            changed.append((module, before))
        yield
    finally:
        for module, before in changed:
            if before is not None:
                module.forward = before
            elif "forward" in vars(module):
                del module.forward


def _replaced(module, name, forward, own, held):
    """A forward that is the rule's in this thread, and the module's own in others."""
    thread = threading.get_ident()

    def called(*args, **kwargs):
        if threading.get_ident() != thread:
            return forward(*args, **kwargs)
        if held is not None and held.known:
            args, kwargs = held.swapped(args), held.swapped(kwargs)
        return _called(module, name, args, kwargs, forward) if own is None else own(module, *args, **kwargs)

    return called


def watched(model, args, kwargs=None):
    """The model's output on plain inputs, and what every maximum picks."""
    shapes = ", ".join(f"{tuple(v.shape)} {v.dtype}" for v in args if isinstance(v, torch.Tensor))
    with Picks() as picks, unfused(), _explained(UserError, f"the model's forward fails on inputs {shapes}"):
        output = called(model, args, kwargs)
    if any(isinstance(module, nn.TransformerEncoder) for module in model.modules()):
        _check_fused(getattr(output, "logits", output), model, args, kwargs)
    return output, picks.found


@contextlib.contextmanager
def unfused():
    """Without the fused layers of torch's transformers, which no rule sees; afterwards as it was."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _check_fused(output, model, args, kwargs):
    """Raise UserError where the fused encoder, which gives 0 at padded tokens, gives the model another output."""
    if torch.is_grad_enabled() or not torch.backends.mha.get_fastpath_enabled() or not torch.is_tensor(output):
        return
    fused = called(model, args, kwargs)
    fused = getattr(fused, "logits", fused)
    difference = float((fused - output).abs().max())
    if not difference <= TOLERANCES.get(output.dtype, 1e-3) * max(1.0, float(output.abs().max())):
        raise UserError(
            f"torch's fused TransformerEncoder gives 0 at padded tokens, and so another output than in training, by "
            f"{difference:.2g}: leave padded tokens out of what follows it, or give it enable_nested_tensor=False"
        )


@contextlib.contextmanager
def as_evaluated(model):
    """The model in evaluation mode, without TF32; afterwards as it was.

    Raises UserError for modules in training whose `train` does more than set a flag, where gradients are enabled: what
    such a module does to its weights has no gradient.
    """
    precise = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with _lock, _in_evaluation(model):
        compiled = [(m, m._compiled_call_impl) for m in model.modules() if m._compiled_call_impl is not None]
        try:
            for module, _ in compiled:
                module._compiled_call_impl = None
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
            dynamo = "torch._dynamo" in sys.modules  # functions in the forward that torch.compile has wrapped
            with torch.compiler.set_stance("force_eager") if dynamo else contextlib.nullcontext():
                yield
        finally:
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = precise
            for module, call in compiled:
                module._compiled_call_impl = call


@contextlib.contextmanager
def _in_evaluation(model):
    modes = [(name, module, module.training) for name, module in model.named_modules()]
    more = [(name, module) for name, module, training in modes if training and kept.does_more(module)]
    if more:
        name, module = more[0]
        if torch.is_grad_enabled():
            raise UserError(
                f"the train() of {name or 'the model'} ({type(module).__name__}) does more than set a flag, without a "
                "gradient: call model.eval() first, or ask for scores in torch.no_grad()"
            )
        with kept.evaluating(model, module):
            yield
        return
    try:
        for _, module, _ in modes:
            module.training = False
        yield
    finally:
        for _, module, mode in modes:
            module.training = mode
