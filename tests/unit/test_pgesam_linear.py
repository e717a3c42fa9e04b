"""The layers that train through oneDNN against torch's own: answers and gradients."""

import io

import onnx
import pytest
import torch
from torch.nn import functional

from timbrel.pgesam import linear as layers
from timbrel.pgesam.linear import Doubling, linear


def gradients(answer, *leaves):
    weights = torch.linspace(-1.0, 2.0, answer.numel()).view(answer.shape)
    return torch.autograd.grad((answer * weights).sum(), leaves)


@pytest.mark.parametrize("shape", [(64, 96), (4, 16, 96), (3, 96)])
def test_products_and_their_gradients_are_those_of_torch(shape, monkeypatch):
    monkeypatch.setattr(layers, "SMALLEST_PRODUCT", 1)
    torch.manual_seed(0)
    x, weight, bias = torch.randn(shape), torch.randn(80, 96), torch.randn(80)
    leaves = [each.requires_grad_() for each in (x, weight, bias)]
    torchs = functional.linear(*leaves)
    monkeypatch.setattr(layers, "functional", None)  # torch's own would not be found
    ours = linear(*leaves)
    torch.testing.assert_close(ours, torchs, atol=1e-4, rtol=1e-5)
    for mine, theirs in zip(gradients(ours, *leaves), gradients(torchs, *leaves), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-4)


def test_rows_cut_out_of_wider_ones_are_copied_first(monkeypatch):
    """oneDNN takes a thousand times as long for them."""
    monkeypatch.setattr(layers, "SMALLEST_PRODUCT", 1)
    given = []
    product = layers._product
    monkeypatch.setattr(layers, "_product", lambda x, *rest: given.append(x) or product(x, *rest))
    x, weight = torch.randn(6, 40), torch.randn(5, 30, requires_grad=True)
    answer = linear(x[:, 10:], weight)
    torch.testing.assert_close(answer, functional.linear(x[:, 10:], weight))
    assert given[0].stride() == (30, 1)


def test_inputs_without_gradient_and_layers_without_bias(monkeypatch):
    monkeypatch.setattr(layers, "SMALLEST_PRODUCT", 1)
    x, weight = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]], requires_grad=True)
    linear(x, weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("smallest", [1, 10**9])
def test_doubling_is_the_transposed_convolution(smallest, monkeypatch):
    monkeypatch.setattr(layers, "SMALLEST_PRODUCT", smallest)
    torch.manual_seed(1)
    layer, x = Doubling(12, 8), torch.randn(3, 7, 12, requires_grad=True)
    leaves = (x, layer.weight, layer.bias)
    expected = functional.conv_transpose1d(
        x.transpose(1, 2), layer.weight, layer.bias, stride=2, padding=2, output_padding=1
    ).transpose(1, 2)
    ours = layer(x)
    assert ours.shape == (3, 14, 8)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)
    for mine, theirs in zip(gradients(ours, *leaves), gradients(expected, *leaves), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_exported_graph_holds_plain_operators(monkeypatch):
    monkeypatch.setattr(layers, "SMALLEST_PRODUCT", 1)
    file = io.BytesIO()
    torch.onnx.export(layers.Linear(4, 3), (torch.ones(2, 4),), file, dynamo=False)
    graph = onnx.load_from_string(file.getvalue()).graph
    assert [node.op_type for node in graph.node] == ["Gemm"]
