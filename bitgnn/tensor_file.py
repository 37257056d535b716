r"""Safetensors content with a checksum over tensors and metadata: the form of packed models,
checkpoints and teachers."""

import hashlib
import json
from collections.abc import Mapping

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

CHECKSUM = "sha256"
# Beside its own errors, those of torch for types and shapes that it does not have.
UNREADABLE = (SafetensorError, KeyError, RuntimeError, TypeError, ValueError, AttributeError)


def to_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    r"""Returns the content of a file, checksum included.

    Args:
        tensors (dict): The tensors, on any device.
        metadata (dict): The metadata.
    """
    # A copy each: safetensors refuses tensors that share memory.
    tensors = {name: each.detach().cpu().contiguous().clone() for name, each in tensors.items()}
    return safetensors.torch.save(tensors, {**metadata, CHECKSUM: checksum(tensors, metadata)})


def from_bytes(
    content: bytes, most_header: int | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    r"""The inverse of :func:`to_bytes`: returns the tensors and the metadata, checksum included.

    The checksum is compared where there is one. Forms that are older than the checksum lack it;
    whether a file may, is for its reader to decide.

    Args:
        content (bytes): The content. The tensors are copies of it.
        most_header (int, optional): The largest number of bytes that the header may have.
            (default: :obj:`None`, 100 million, which safetensors allows)

    Raises:
        ValueError: If the content is damaged or no safetensors file, with the reason alone as its
            message.
    """
    length = int.from_bytes(content[:8], "little")
    if most_header is not None and length > most_header:
        raise ValueError(f"a header of {length} bytes; {most_header} are allowed")
    try:
        tensors = safetensors.torch.load(content)
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(reason) from None
    # Safetensors has checked that there is a header, which is JSON and maps strings to strings.
    metadata = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
    if CHECKSUM in metadata and metadata[CHECKSUM] != checksum(tensors, metadata):
        raise ValueError("its checksum differs")
    return tensors, metadata


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    r"""Returns the SHA-256 of tensors (names, types, shapes and numbers) and metadata.

    Args:
        tensors (dict): The tensors.
        metadata (dict): The metadata, of which the checksum itself has no part.
    """
    digest = hashlib.sha256()
    for name in sorted(set(metadata) - {CHECKSUM}):
        digest.update(f"{name}={metadata[name]}\n".encode())
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
