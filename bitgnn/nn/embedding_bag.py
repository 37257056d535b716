import torch
from torch import Tensor

from bitgnn.kernels import quantize_weight
from bitgnn.nn.functional import bit_linear, linear_product
from bitgnn.nn.linear import BitLinear
from bitgnn.quant import Quant


class BitEmbeddingBag(BitLinear):
    r"""The weighted sum of the embeddings of a bag of words,

    .. math::
        \mathbf{x}^{\prime}_i = \sum_w x_{iw} \, \mathbf{e}_w,

    with ternary embeddings and 8-bit weights of words: a
    :class:`bitgnn.nn.BitLinear` without bias that keeps its weight word by
    word, as :class:`torch.nn.EmbeddingBag` does. A bag, a row of a sparse
    matrix, thus reads whole rows of memory.

    Args:
        in_channels (int): Size of the vocabulary.
        out_channels (int): Size of an embedding.
        quant (QuantConfig or str, optional): How to quantize; :obj:`None` is
            full precision. (default: :obj:`"b158"`)

    Shapes:
        - **input:** bags of words :math:`(N, F_{in})`, dense or a sparse
          matrix
        - **output:** features :math:`(N, F_{out})`
        - **weight:** :math:`(F_{in}, F_{out})`
    """

    def __init__(self, in_channels: int, out_channels: int, quant: Quant = "b158") -> None:
        if in_channels < 1:
            raise ValueError(
                f"'in_channels' must be the size of the vocabulary (got {in_channels})"
            )
        super().__init__(
            in_channels, out_channels, bias=False, weight_initializer="glorot", quant=quant
        )
        # Glorot's initialization is the same both ways round.
        self.weight.data = self.weight.data.view(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        r"""Forward pass.

        Args:
            x (torch.Tensor): The bags of words.
        """
        weight = self.weight.t()
        if self.quant is None:
            return linear_product(x, weight)
        return bit_linear(x, weight, None, self.quant, self.strength, self.training, self._rows)

    @torch.no_grad()
    def ternary(self) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`\mathbf{W}_q` of :math:`(F_{out}, F_{in})` and
        :math:`s_w` as inference uses them."""
        if self.quant is None or self.quant.weight_bits is None:
            raise ValueError(f"'{self}' has 32-bit weights: nothing is quantized")
        return quantize_weight(self.weight.t(), self.quant)
