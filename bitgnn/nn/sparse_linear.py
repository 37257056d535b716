import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import Linear

from bitgnn.nn.functional import linear_product


class SparseLinear(Linear):
    r"""A :class:`torch_geometric.nn.Linear` that takes sparse features, too, and
    is fast on them (CSR, on a CPU): what a ternary layer holds with
    :obj:`quant=None`.

    Args:
        *args (optional): Arguments of :class:`torch_geometric.nn.Linear`.
        **kwargs (optional): Further arguments of
            :class:`torch_geometric.nn.Linear`.

    Shapes:
        - **input:** features :math:`(*, F_{in})`, dense or a sparse matrix
        - **output:** features :math:`(*, F_{out})`
    """

    def forward(self, x: Tensor) -> Tensor:
        r"""Forward pass.

        Args:
            x (torch.Tensor): The input features.
        """
        # TorchScript knows no sparse layouts; a nested `if` keeps them out of its sight.
        if not torch.jit.is_scripting():  # noqa: SIM102
            if x.layout != torch.strided:
                return linear_product(x, self.weight, self.bias)
        return F.linear(x, self.weight, self.bias)
