r"""Imports PyG without a warning that is of no use to whoever imports bitgnn."""

import warnings

with warnings.catch_warnings():
    # PyG calls it as it is imported, of which torch 2.14 warns everybody.
    warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated")
    import torch_geometric  # noqa: F401
