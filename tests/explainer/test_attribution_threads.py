"""Explainers and models used from several threads at once, copied and pickled."""

import copy
import pickle
import threading

import numpy as np
import torch
from test_attribution_models import Network, loader

from explainer.attribution import RPSLJE, TracIn


def problem():
    g = torch.Generator().manual_seed(1)
    x = torch.randn(50, 6, generator=g)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()


def together(*works):
    """What went wrong in threads that each do one work."""
    errors = []

    def tried(work):
        try:
            work()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=tried, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_threads_that_load_checkpoints_into_one_model_do_not_meet():
    data, model = problem(), Network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    states = [{name: value * factor for name, value in before.items()} for factor in (1, 1.5)]
    test = [data[0][:3]]
    shared = TracIn(model, loader(data), checkpoints=states)
    expected = shared.top_k(test, 3).values
    plain = RPSLJE(model, loader(data)).logits(test)
    wrong = {**states[0], "fc.bias": torch.zeros(7)}

    def work():
        for _ in range(2):
            np.testing.assert_array_equal(
                TracIn(model, loader(data), checkpoints=states).top_k(test, 3).values, expected
            )
            np.testing.assert_array_equal(shared.top_k(test, 3).values, expected)
            np.testing.assert_array_equal(RPSLJE(model, loader(data)).logits(test), plain)

    def fails():
        for _ in range(2):
            try:
                TracIn(model, loader(data), checkpoints=[states[0], wrong])
            except ValueError as error:
                assert "a checkpoint is of another model" in str(error)
            else:
                raise AssertionError("it should be refused")

    assert together(work, work, work, fails) == []
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_models_that_share_a_body_wait_for_each_other():
    data, one = problem(), Network().train()
    other = Network().train()
    other.body = one.body
    expected = [RPSLJE(model, loader(data)).self_influence() for model in (one, other)]

    def work(k, model):
        for _ in range(2):
            np.testing.assert_array_equal(RPSLJE(model, loader(data)).self_influence(), expected[k])

    assert together(lambda: work(0, one), lambda: work(1, other), lambda: work(0, one)) == []
    assert all(module.training for module in (*one.modules(), *other.modules()))


def test_a_model_with_extra_state_is_put_back_whole():
    class Extra(Network):
        scale = 1.0

        def get_extra_state(self):
            return {"scale": self.scale}

        def set_extra_state(self, state):
            self.scale = state["scale"]

        def forward(self, x):
            return super().forward(self.scale * x)

    data, model = problem(), Extra()
    state = {**model.state_dict(), "_extra_state": {"scale": 2.0}}
    found = TracIn(model, loader(data), checkpoints=[state]).self_influence()
    assert model.scale == 1.0
    model.scale = 2.0
    np.testing.assert_allclose(TracIn(model, loader(data)).self_influence(), found)


def test_explainers_of_models_are_copied_and_pickled():
    data, model = problem(), Network().body
    model.append(torch.nn.Linear(8, 3))
    for method, more in ((RPSLJE, {}), (TracIn, {}), (TracIn, {"checkpoints": [model.state_dict()]})):
        explainer = method(model, loader(data), **more)
        expected = explainer.top_k([data[0][:3]], 3).values
        for again in (copy.deepcopy(explainer), pickle.loads(pickle.dumps(explainer))):
            np.testing.assert_array_equal(again.top_k([data[0][:3]], 3).values, expected)
