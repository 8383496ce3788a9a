"""Rounding weights jointly: a smaller error than one by one, if the inputs correlate."""

import numpy as np
import torch

from visavis_export.graphs.rounding import gptq


def test_correlated_inputs_share_their_errors() -> None:
    # Two inputs that are always equal: 0.4 + 0.4 is 1 step, though each alone rounds to 0.
    samples = torch.ones(10, 2)
    weights = torch.tensor([[0.4, 0.4]])
    rounded = gptq(weights, torch.ones(1), samples.T @ samples)
    assert rounded.sum() == 1


def test_uncorrelated_inputs_are_rounded_one_by_one() -> None:
    weights = torch.from_numpy(np.random.default_rng(0).normal(0, 40, (8, 16)).astype(np.float32))
    rounded = gptq(weights, torch.ones(8), torch.eye(16) * 100)
    assert torch.equal(rounded, weights.round().clamp(-127, 127))


def test_neighbouring_pixels_give_a_smaller_error_than_plain_rounding() -> None:
    random = np.random.default_rng(1)
    smooth = np.cumsum(random.normal(0, 1, (2000, 30)), axis=1)
    samples = torch.from_numpy(smooth.astype(np.float32))
    weights = torch.from_numpy(random.normal(0, 1, (4, 30)).astype(np.float32))
    scales = weights.abs().amax(1) / 127 * 8  # coarse, so that it shows
    rounded = gptq(weights, scales, samples.T @ samples)
    assert rounded.abs().max() <= 127
    assert torch.equal(rounded, rounded.round())

    def error(whole: torch.Tensor) -> float:
        return float(((samples @ (whole * scales[:, None] - weights).T) ** 2).mean())

    plain = (weights / scales[:, None]).round()
    assert error(rounded) < error(plain) / 3


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    samples = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    rounded = gptq(torch.tensor([[3.2, 5.7]]), torch.ones(1), samples.T @ samples)
    assert rounded.tolist() == [[3.0, 6.0]]
