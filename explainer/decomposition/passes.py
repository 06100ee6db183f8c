"""One pass of a model over split inputs: through a trace of torch.fx, or through the model's own forward."""

import contextlib
import weakref

import torch
from torch import fx

from config import UserError
from explainer.decomposition import registry
from explainer.decomposition.rules.pooling import Picks
from explainer.decomposition.split import UnsupportedOp, splits

_traces = weakref.WeakKeyDictionary()  # model -> (its modules and the classes with rules, GraphModule)


class _Tracer(fx.Tracer):
    """Modules with a rule of their own, and those of torch, are one operation each."""

    def is_leaf_module(self, module, name):
        return registry.module_rule(module) is not None or super().is_leaf_module(module, name)


class _Interpreter(fx.Interpreter):
    """Runs a trace with Splits: functions and methods find their rules themselves, modules by their class."""

    def __init__(self, trace, own_rules):
        super().__init__(trace, garbage_collect_values=True)
        self.own_rules, self.extra_traceback = own_rules, False

    def call_module(self, target, args, kwargs):
        module = self.fetch_attr(target)
        if module in self.own_rules:
            return self.own_rules[module](module, *args, **kwargs)
        with patched(module, self.own_rules) if any(module.children()) else contextlib.nullcontext():
            return _called(module, target, args, kwargs)


def _called(module, name, args, kwargs, forward=None):
    """A module on Splits: by the rule of its class, or by its own forward, whose operations have theirs."""
    found, some = registry.module_rule(module), next(splits((args, kwargs)), None)
    if found is None or some is None:
        try:
            return (forward or module)(*args, **kwargs)
        except UnsupportedOp as error:
            raise UnsupportedOp(f"{name} ({type(module).__name__}): {error}") from None
    result = found(some.rules, module, *args, **kwargs)
    some.rules.record(name, result)
    return result


def traced(model):
    """The model's trace, kept while its modules and the rules are the same ones; None where it cannot be traced."""
    modules = tuple((name, id(module)) for name, module in model.named_modules()), tuple(registry.MODULES)
    known = _traces.get(model)
    if known is None or known[0] != modules:
        try:
            tracer = _Tracer()
            known = modules, fx.GraphModule(model, tracer.trace(model))
        except UserError:
            raise
        except Exception:  # a forward that depends on its data: torch.fx raises whatever that comes to
            known = modules, None
        _traces[model] = known
    return known[1]


def run(model, inputs, own_rules):
    """The model's output for inputs with Splits among them.

    own_rules: {module: function(module, *args)} that stand in for modules of this model, such as its embedding.
    """
    trace = traced(model) if model not in own_rules else None
    if trace is not None and len([n for n in trace.graph.nodes if n.op == "placeholder"]) >= len(inputs):
        return _Interpreter(trace, own_rules).run(*inputs)
    with patched(model, own_rules):
        return model(*inputs)


@contextlib.contextmanager
def patched(model, own_rules):
    """The model's modules that have rules, with those in place of their forward; afterwards as they were."""
    changed = []
    try:
        for name, module in model.named_modules():
            own = own_rules.get(module)
            if own is None and registry.module_rule(module) is None:
                continue
            if "forward" in vars(module):
                raise UserError(f"the forward of {name or 'the model'} is an attribute: give a model as its class is")
            forward = module.forward
            module.forward = _replaced(module, name, forward, own)
            changed.append(module)
        yield
    finally:
        for module in changed:
            del module.forward


def _replaced(module, name, forward, own):
    if own is not None:
        return lambda *args, **kwargs: own(module, *args, **kwargs)
    return lambda *args, **kwargs: _called(module, name, args, kwargs, forward)


def watched(model, inputs):
    """The model's output on plain inputs, and what every maximum picks."""
    with Picks() as picks:
        output = model(*inputs)
    return output, picks.found


@contextlib.contextmanager
def as_evaluated(model):
    """The model in evaluation mode, without TF32; afterwards as it was."""
    modes = [(module, module.training) for module in model.modules()]
    precise = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        model.eval()
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = precise
        for module, mode in modes:
            module.training = mode
