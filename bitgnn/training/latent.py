from torch import nn
from torch.nn import Parameter

from bitgnn.nn import BitHeteroLinear, BitLinear
from bitgnn.nn.twin import is_ternary


def quantized_layers(model: nn.Module) -> list[BitLinear | BitHeteroLinear]:
    r"""Returns the linear layers of a model that quantize; none in full precision.

    Args:
        model (torch.nn.Module): The model.
    """
    return [module for module in model.modules() if is_ternary(module)]


def latent_weights(model: nn.Module) -> list[Parameter]:
    r"""Returns the weights of a model that are quantized in each step.

    Args:
        model (torch.nn.Module): The model.
    """
    return [
        layer.weight
        for layer in quantized_layers(model)
        if layer.quant is not None and layer.quant.weight_bits is not None
    ]


def split_parameters(model: nn.Module) -> tuple[list[Parameter], list[Parameter]]:
    r"""Returns the latent weights of a model, and its other parameters.

    Args:
        model (torch.nn.Module): The model.
    """
    latent = latent_weights(model)
    quantized = {id(weight) for weight in latent}
    return latent, [param for param in model.parameters() if id(param) not in quantized]
