from typing import Literal

from torch import Tensor
from torch.nn import Module

from bitgnn.kernels import dropout
from bitgnn.nn.embedding_bag import BitEmbeddingBag
from bitgnn.nn.linear import BitLinear
from bitgnn.quant import Quant, resolve_quant

TERNARY = ("all", "output")


class BitWideMLP(Module):
    r"""The text classifier of `"Bag-of-Words vs. Graph vs. Sequence in Text
    Classification" <https://arxiv.org/abs/2109.03777>`_ with ternary layers,

    .. math::
        \mathbf{Y} = \mathrm{ReLU}(\mathbf{X} \mathbf{E}) \, \mathbf{W}^{\top}
        + \mathbf{b},

    where a row of :math:`\mathbf{X}` is a bag of words, mostly zeros, and
    :math:`\mathbf{E}` holds the embedding of each word: the product is the
    weighted sum of the words' embeddings, as
    :class:`torch.nn.EmbeddingBag` computes it.

    Args:
        in_channels (int): Size of the vocabulary.
        hidden_channels (int): Size of an embedding.
        out_channels (int): Number of classes.
        embedding_dropout (float, optional): Dropout of the summed embeddings.
            (default: :obj:`0.5`)
        dropout (float, optional): Dropout behind the activation function.
            (default: :obj:`0.5`)
        quant (QuantConfig or str, optional): How to quantize; :obj:`None` is
            full precision. (default: :obj:`"b158"`)
        ternary (str, optional): The layers that quantize, :obj:`"all"` or, as
            in `arXiv 2411.05882 <https://arxiv.org/abs/2411.05882>`_, the
            :obj:`"output"` layer alone. (default: :obj:`"all"`)

    Shapes:
        - **input:** bags of words :math:`(N, F_{in})`, dense or a sparse
          matrix
        - **output:** logits :math:`(N, F_{out})`

    Raises:
        ValueError: If :obj:`ternary` is none of these.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        embedding_dropout: float = 0.5,
        dropout: float = 0.5,
        quant: Quant = "b158",
        ternary: Literal["all", "output"] = "all",
    ) -> None:
        super().__init__()
        if ternary not in TERNARY:
            choices = " or ".join(repr(choice) for choice in TERNARY)
            raise ValueError(f"'ternary' must be {choices} (got {ternary!r})")
        self.quant = resolve_quant(quant)
        self.embedding_dropout, self.dropout = embedding_dropout, dropout
        first = self.quant if ternary == "all" else None
        self.embedding = BitEmbeddingBag(in_channels, hidden_channels, quant=first)
        self.lin = BitLinear(hidden_channels, out_channels, quant=self.quant)

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        self.embedding.reset_parameters()
        self.lin.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        r"""Forward pass.

        Args:
            x (torch.Tensor): The bags of words.
        """
        x = dropout(self.embedding(x), self.embedding_dropout, self.training)
        return self.lin(dropout(x.relu(), self.dropout, self.training))

    def __repr__(self) -> str:
        channels = self.embedding.in_channels, self.lin.in_channels, self.lin.out_channels
        return f"{self.__class__.__name__}({', '.join(map(str, channels))})"
