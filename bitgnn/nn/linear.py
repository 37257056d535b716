import torch
import torch_geometric.nn
from torch import Tensor
from torch.nn.parameter import UninitializedParameter

from bitgnn.kernels import quantize_weight
from bitgnn.nn.functional import bit_linear, linear_product
from bitgnn.nn.rows import RowQuantizer
from bitgnn.quant import Quant, QuantConfig, resolve_quant


class BitLinear(torch_geometric.nn.Linear):
    r"""A :class:`torch_geometric.nn.Linear` with ternary weights and 8-bit
    activations, in the line of `"The Era of 1-bit LLMs: All Large Language
    Models are in 1.58 Bits" <https://arxiv.org/abs/2402.17764>`_,

    .. math::
        \mathbf{x}^{\prime} = (\mathbf{x}_q \mathbf{W}_q^{\top}) \, s_x \, s_w
        + \mathbf{b},

    where :math:`\mathbf{W}_q \in \{-1, 0, 1\}` and :math:`s_w` quantize the
    latent weight (:func:`bitgnn.quant.quantize_weight`) and
    :math:`\mathbf{x}_q` and :math:`s_x` the rows of :math:`\mathbf{x}`
    (:func:`bitgnn.quant.quantize_rows`). In training, gradients pass straight
    through both quantizers to the latent weight, which is what
    :obj:`state_dict` holds.

    It also stands in for :class:`torch.nn.Linear`. Non-finite values spoil
    their own row only; half precision is quantized in 32 bits and multiplied
    in its own type.

    Args:
        in_channels (int): Size of each input sample, or :obj:`-1` to
            initialize lazily.
        out_channels (int): Size of each output sample.
        bias (bool, optional): If set to :obj:`False`, the layer will not learn
            an additive bias. (default: :obj:`True`)
        weight_initializer (str, optional): The initializer for the weight
            matrix (:obj:`"glorot"`, :obj:`"uniform"`, :obj:`"kaiming_uniform"`
            or :obj:`None`). (default: :obj:`None`)
        bias_initializer (str, optional): The initializer for the bias vector
            (:obj:`"zeros"` or :obj:`None`). (default: :obj:`None`)
        quant (QuantConfig or str, optional): How to quantize, as a
            configuration or the name of a preset; :obj:`None` is full
            precision, exactly PyG's layer. (default: :obj:`"b158"`)

    Shapes:
        - **input:** features :math:`(*, F_{in})`, dense or a sparse matrix
        - **output:** features :math:`(*, F_{out})`

    Raises:
        TypeError: If :obj:`quant` is no configuration.
        ValueError: If no preset is called :obj:`quant`.
    """

    quant: QuantConfig | None
    strength: float

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bias: bool = True,
        weight_initializer: str | None = None,
        bias_initializer: str | None = None,
        quant: Quant = "b158",
    ) -> None:
        super().__init__(in_channels, out_channels, bias, weight_initializer, bias_initializer)
        self._set_quant(quant)

    def _set_quant(self, quant: Quant) -> None:
        self.quant = resolve_quant(quant)
        self.strength = 1.0
        self._rows = None if self.quant is None else RowQuantizer(self.quant)

    @classmethod
    def from_linear(
        cls,
        linear: torch.nn.Module,
        quant: Quant = "b158",
    ) -> "BitLinear":
        """Turns a linear layer of PyG or torch into a ternary one that holds the
        same parameters (the very same objects), without drawing random numbers.

        Args:
            linear (torch.nn.Module): A :class:`torch_geometric.nn.Linear` or a
                :class:`torch.nn.Linear`.
            quant (QuantConfig or str, optional): How to quantize.
                (default: :obj:`"b158"`)

        Raises:
            TypeError: If :obj:`linear` is none of these, or a
                :class:`torch.nn.LazyLinear` that has not seen an input yet.
        """
        if not isinstance(linear, (torch_geometric.nn.Linear, torch.nn.Linear)) or isinstance(
            linear, torch.nn.LazyLinear
        ):
            raise TypeError(
                "'linear' must be a torch_geometric.nn.Linear or an initialized torch.nn.Linear "
                f"(got {linear})"
            )
        out = cls.__new__(cls)
        torch.nn.Module.__init__(out)
        if isinstance(linear, torch_geometric.nn.Linear):
            out.in_channels, out.out_channels = linear.in_channels, linear.out_channels
            out.weight_initializer = linear.weight_initializer
            out.bias_initializer = linear.bias_initializer
        else:
            out.in_channels, out.out_channels = linear.in_features, linear.out_features
            out.weight_initializer = out.bias_initializer = None
        out.weight = linear.weight
        out.register_parameter("bias", linear.bias)
        if isinstance(linear.weight, UninitializedParameter):
            out._hook = out.register_forward_pre_hook(out.initialize_parameters)
        out.train(linear.training)
        out._set_quant(quant)
        return out

    @property
    def in_features(self) -> int:
        """The name :class:`torch.nn.Linear` has for :obj:`in_channels`."""
        return self.in_channels

    @property
    def out_features(self) -> int:
        """The name :class:`torch.nn.Linear` has for :obj:`out_channels`."""
        return self.out_channels

    def forward(self, x: Tensor) -> Tensor:
        r"""Forward pass.

        Args:
            x (torch.Tensor): The input features.
        """
        if self.quant is None:
            return linear_product(x, self.weight, self.bias)
        return bit_linear(
            x, self.weight, self.bias, self.quant, self.strength, self.training, self._rows
        )

    @torch.no_grad()
    def ternary(self) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`\mathbf{W}_q` and :math:`s_w` as inference uses them."""
        if self.quant is None or self.quant.weight_bits is None:
            raise ValueError(f"'{self}' has 32-bit weights: nothing is quantized")
        return quantize_weight(self.weight, self.quant)

    def __repr__(self) -> str:
        if self.quant is None or self.quant == QuantConfig():
            return super().__repr__()
        changed = {
            name: value
            for name, value in self.quant.to_dict().items()
            if value != getattr(QuantConfig, name)
        }
        extra = ", ".join(f"{name}={value}" for name, value in changed.items())
        return f"{super().__repr__()[:-1]}, {extra})"
