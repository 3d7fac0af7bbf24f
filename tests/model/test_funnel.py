"""The funnel's layers, and its function by hand."""

import torch
import torch.nn.functional as F
from torch import nn

from skinlesion.model.funnel import DenseFunnel


def test_layers_as_published():
    funnel = DenseFunnel(2048, 7)
    found = [type(layer).__name__ for layer in funnel.layers]
    assert found == ["BatchNorm1d", *3 * ["Linear", "SiLU", "BatchNorm1d", "Dropout"], "Linear"]
    linear = [layer.weight.shape for layer in funnel.layers if isinstance(layer, nn.Linear)]
    assert linear == [(512, 2048), (256, 512), (128, 256), (7, 128)]
    norms = [layer.num_features for layer in funnel.layers if isinstance(layer, nn.BatchNorm1d)]
    assert norms == [2048, 512, 256, 128]
    assert [layer.p for layer in funnel.layers if isinstance(layer, nn.Dropout)] == [0.5, 0.25, 0.125]


def test_number_of_parameters_by_hand():
    funnel = DenseFunnel(10, 3, widths=[6, 4], dropout=0.5)
    expected = 2 * 10 + (10 * 6 + 6) + 2 * 6 + (6 * 4 + 4) + 2 * 4 + (4 * 3 + 3)
    assert sum(parameter.numel() for parameter in funnel.parameters()) == expected


def test_without_widths_it_is_linear_on_normalised_features():
    funnel = DenseFunnel(6, 3, widths=(), dropout=0.5).train()
    x = 5 + 3 * torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    normalised = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()
    linear = funnel.layers[-1]
    torch.testing.assert_close(funnel(x), normalised @ linear.weight.T + linear.bias, rtol=1e-4, atol=1e-5)


def test_evaluation_by_hand():
    funnel = DenseFunnel(6, 3, widths=[4], dropout=0.5).eval()
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    _, first, _, _, _, last = funnel.layers
    norm = (1 + 1e-5) ** -0.5  # a new batch norm's running mean is 0 and its variance 1
    hidden = first(norm * x)
    torch.testing.assert_close(funnel(x), last(norm * hidden * torch.sigmoid(hidden)))


def test_dropout_in_training_only():
    funnel = DenseFunnel(6, 3, widths=[64], dropout=0.5)
    x = torch.randn(8, 6)
    assert not torch.equal(funnel(x), funnel(x))
    funnel.eval()
    assert torch.equal(funnel(x), funnel(x))


def test_every_weight_learns():
    torch.manual_seed(0)
    funnel = DenseFunnel(6, 3, widths=[8, 4], dropout=0.0)
    F.cross_entropy(funnel(torch.randn(16, 6)), torch.arange(16) % 3).backward()
    assert all(parameter.grad is not None for parameter in funnel.parameters())
    assert funnel.layers[1].weight.grad.abs().sum() > 0
