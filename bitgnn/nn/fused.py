"""Fused kernels of torch and PyG read the weights of linear layers and bypass their forward."""

from torch import Tensor
from torch.nn import Module, TransformerEncoder, TransformerEncoderLayer
from torch_geometric.nn import PMLP, HeteroDictLinear

from bitgnn.nn.linear import BitLinear


class BitHeteroDictLinear(HeteroDictLinear):
    """A :class:`torch_geometric.nn.HeteroDictLinear` that calls its linear layers one by
    one; PyG's multiplies by their weights in one kernel if :obj:`pyg-lib` is installed."""

    def forward(self, x_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        return {key: lin(x_dict[key]) for key, lin in self.lins.items() if key in x_dict}


def use_forward(model: Module) -> None:
    """Turns off, in place, the fused kernels that would bypass the ternary layers of a model.

    Args:
        model (torch.nn.Module): The model.
    """
    for module in model.modules():
        if type(module) is HeteroDictLinear and _holds_ternary(module):
            module.__class__ = BitHeteroDictLinear
        elif isinstance(module, TransformerEncoderLayer) and _holds_ternary(module):
            module.activation_relu_or_gelu = 0  # One condition of torch's fast path.
        elif isinstance(module, TransformerEncoder) and _holds_ternary(module):
            module.use_nested_tensor = False


def reads_weights(module: Module) -> bool:
    """Whether a module reads the weights of its linear layers and never calls them."""
    return isinstance(module, PMLP)


def _holds_ternary(module: Module) -> bool:
    return any(isinstance(child, BitLinear) for child in module.modules())
