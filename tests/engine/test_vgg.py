"""The truncated network against torchvision's own."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from styled.engine.vgg import Vgg19, normalize
from styled.engine.vgg_layers import CONVOLUTION_NAMES, channels_of, needed_slice
from styled.engine.weights import TORCHVISION_INDEX
from styled.errors import ConfigError
from styled.recipes import LAYER_NAMES
from tests.engine.conftest import picture, untrained


@pytest.fixture(scope="module")
def reference() -> torch.nn.Sequential:
    """torchvision's convolutional part with the untrained weights, ReLUs not in place."""
    # Not at the top: it takes over a second, and each worker imports the modules of all tests.
    from torchvision.models import vgg19

    with torch.device("meta"):  # avoids initialising the classifier's 124 million parameters
        model = vgg19(weights=None)
    features: torch.nn.Sequential = model.features.to_empty(device="cpu")
    for name, (kernel, bias) in untrained().items():
        convolution = features[TORCHVISION_INDEX[name]]
        assert isinstance(convolution, torch.nn.Conv2d)
        convolution.weight.data, convolution.bias.data = kernel, bias  # type: ignore[union-attr]  # it has a bias
    for module in features:
        if isinstance(module, torch.nn.ReLU):
            module.inplace = False
    return features.eval()


def test_every_layer_equals_torchvisions(
    reference: torch.nn.Sequential, network: Vgg19, network64: Vgg19
) -> None:
    """Each named layer equals the output of the module at its index in torchvision's vgg19.

    In float64 the tolerance is strict. In float32 the maximum error of a layer is relative to the
    layer's standard deviation: 1.3e-5 was observed, in one element, after 13 layers.
    """
    image = normalize(picture(64, 48).double())
    expected: list[Tensor] = []
    x = image
    with torch.no_grad():
        for module in copy.deepcopy(reference).double():
            x = module(x)
            expected.append(x)
        exact = network64.features(image, LAYER_NAMES)
        single = network.features(image.float(), LAYER_NAMES)
    assert len(LAYER_NAMES) == len(expected) == 37
    for name, activation in zip(LAYER_NAMES, expected, strict=True):
        torch.testing.assert_close(exact[name], activation, rtol=1e-10, atol=1e-12)
        assert activation.shape[1] == channels_of(name)
        error = (single[name].double() - activation).abs().max() / activation.std()
        assert error < 4e-5, name


def test_a_convolution_that_is_asked_for_is_given_before_its_relu(network: Vgg19) -> None:
    """The in-place ReLU never overwrites a requested convolution."""
    with torch.no_grad():
        features = network.features(picture(40, 40), ["conv2_1", "relu2_1"])
    assert features["conv2_1"].min() < 0
    torch.testing.assert_close(F.relu(features["conv2_1"]), features["relu2_1"])


def test_nothing_beyond_the_deepest_layer_is_run() -> None:
    """The slice ends with the deepest requested layer, without a ReLU after it."""
    assert needed_slice(["conv1_2"]) == ("conv1_1", "relu1_1", "conv1_2")
    assert needed_slice(["relu3_1", "relu1_1"])[-1] == "relu3_1"


def test_a_layer_that_does_not_exist_is_an_error_that_lists_those_that_do() -> None:
    """The error for an unknown layer lists the valid names."""
    with pytest.raises(ConfigError, match="relu6_1") as caught:
        needed_slice(["relu6_1"])
    assert "relu5_4" in str(caught.value)


def test_average_pooling_rescaled_is_twice_the_average(network: Vgg19) -> None:
    """`average_rescaled` is twice `average`, which is torch's average pooling."""
    image = picture(32, 32)
    with torch.no_grad():
        average = network.features(image, ["pool1"], pooling="average")["pool1"]
        rescaled = network.features(image, ["pool1"], pooling="average_rescaled")["pool1"]
        relu = network.features(image, ["relu1_2"])["relu1_2"]
    torch.testing.assert_close(rescaled, 2 * average)
    torch.testing.assert_close(average, F.avg_pool2d(relu, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_l2_pooling_is_torchs_times_078(dtype: torch.dtype) -> None:
    """On both backends: 0.78 x the root of the sum of squares, as style-transfer-pytorch has it."""
    network = Vgg19(untrained(), dtype=dtype)
    image = picture(33, 32)
    with torch.no_grad():
        pooled = network.features(image, ["pool1"], pooling="l2")["pool1"]
        relu = network.features(image, ["relu1_2"])["relu1_2"]
    expected = 0.78 * F.lp_pool2d(relu.double(), 2.0, 2)
    tolerance = 0.02 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(pooled.double(), expected, rtol=tolerance, atol=tolerance)


def test_replicate_padding_continues_the_edge(network: Vgg19) -> None:
    """With replicate padding a uniform picture has uniform features in the first layer."""
    gray = torch.full((1, 3, 16, 16), 0.5)
    with torch.no_grad():
        replicated = network.features(gray, ["conv1_1"], first_padding="replicate")["conv1_1"]
        zeros = network.features(gray, ["conv1_1"])["conv1_1"]
    assert float(replicated.std(dim=(2, 3)).max()) < 1e-6
    assert float(zeros.std(dim=(2, 3)).max()) > 1e-3


def test_gradients_flow_to_the_image_only(network: Vgg19) -> None:
    """The network is frozen: no parameter requires a gradient, the image gets one."""
    image = picture(32, 32).requires_grad_()
    total = network.features(image, ["relu5_1"])["relu5_1"].sum()
    frozen = [tensor for c in network._convolutions.values() for tensor in c.tensors]
    assert not any(tensor.requires_grad for tensor in frozen)
    (gradient,) = torch.autograd.grad(total, image)
    assert gradient.abs().sum() > 0


def test_normalize_uses_imagenets_mean_and_deviation() -> None:
    """ImageNet's mean maps to zero, one standard deviation above it to one."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    torch.testing.assert_close(normalize(mean), torch.zeros(1, 3, 1, 1))
    torch.testing.assert_close(normalize(mean + std), torch.ones(1, 3, 1, 1))


def test_there_are_sixteen_convolutions() -> None:
    """VGG-19 has sixteen convolutions, at torchvision's indices."""
    assert len(CONVOLUTION_NAMES) == 16
    assert TORCHVISION_INDEX["conv5_4"] == 34
