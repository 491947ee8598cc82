"""Prediction: probabilities, one case at a time, and the model's state left alone."""

import numpy as np
import pytest
import torch

from ucadi.errors import FormatError, MismatchError
from ucadi.learn.inference import predict
from ucadi.learn.networks.architecture import Architecture
from ucadi.learn.networks.registry import build, state_arrays

TINY = Architecture(width=4, slices=8, size=16)


def slabs(cases: int, repeats: int = 5) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(repeats, 1, 8, 16, 16)).astype(np.float32) for _ in range(cases)]


def test_probabilities_are_the_softmax_of_the_logits() -> None:
    model = build(TINY, 0)
    before = state_arrays(model)
    (case,) = slabs(1)
    (p,) = predict(model.train(), [case])
    assert p.shape == (5, 4)
    assert p.dtype == np.float32
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    with torch.no_grad():
        logits = build(TINY, 0).eval()(torch.from_numpy(case)).double().numpy()
    np.testing.assert_allclose(p, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), rtol=1e-5)
    after = state_arrays(model)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_case_does_not_depend_on_its_company() -> None:
    model = build(TINY, 0)
    cases = slabs(4)
    together = list(predict(model, cases))
    alone = [next(predict(model, [case])) for case in reversed(cases)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))


def test_is_lazy_and_does_not_leak_its_mode() -> None:
    results = predict(build(TINY, 0), (case for case in slabs(2)))
    next(results)
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()


def test_refusals_name_the_case() -> None:
    model = build(TINY, 0)
    good = slabs(1)[0]
    with pytest.raises(MismatchError, match=r"case 1: slabs are \(5, 1, 8, 16, 15\)"):
        list(predict(model, [good, good[..., :-1]]))
    with pytest.raises(MismatchError, match="case 0"):
        list(predict(model, [good[0]]))
    with pytest.raises(MismatchError, match="case 0"):
        list(predict(model, [good[:0]]))
    with pytest.raises(FormatError, match=r"case 0: .*not finite"):
        list(predict(model, [np.where(good > 3, np.nan, good)]))
