"""Mutations of packed files: of their bytes, which the checksum shows, and of the program and its
tensors, with the checksum recomputed. A file depends on nothing but its seed."""

import json
import random
from functools import cache
from tempfile import TemporaryDirectory

import torch
from safetensors import safe_open
from safetensors.torch import save

from bitgnn.packed.validate_ops import OPS
from bitgnn.tensor_file import checksum
from tests.fuzz.models import packed

# Values that no field was made for, or not every one.
NUMBERS = [
    *(0, 1, -1, 2, 3, 4, 7, 8, 16, 63, 64, 65, 255, 256, 257, 300, 1000, 2**15, 2**16, 2**18),
    *(2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, -(2**31), -(2**63), 10**400),
    *(0.0, -0.0, 0.5, 1.58, -1.5, 1e-45, 1e-30, 1e-8, 1e30, 1e39, 1e308, float("inf")),
    float("nan"),
]
TEXTS = [
    *("", "a", "b", "save", "load", "relu", "elu", "leaky_relu", "gelu", "softmax", "sum", "mean"),
    *("max", "row", "graph", "gcn", "none", "tanh", "__class__", "f", "x" * 5000, "\0", "\ud7ff"),
    *OPS,
]
OTHERS = [None, True, False, [], {}, [1, 2], ["a", "to", "b"], ["b", "to", "a"], [[]], {"a": 1}]
FIELDS = ["kind", "f", "dim", "alpha", "negative_slope", "bits", "heads", "eps", "nodes", "out"]
# Values that may be allowed: what is refused at once tests little of what comes behind.
LIKELY = {
    "kind": ("relu", "tanh", "silu", "sigmoid"),
    "dim": (-1, 0, 1, None),
    "bits": (None, 1.58, 2, 4, 8),
    "heads": (1, 2, 3, 4, 6, 8, 300),
    "concat": (True, False),
    "full_range": (True, False),
    "rescale_bias": (True, False),
    "reduce": ("sum", "mean", "max"),
    "over": ("row", "graph"),
    "self_loops": (True, False),
    "weighted": (True, False),
    "norm": (None, "gcn"),
    "approximate": ("none", "tanh"),
}
DTYPES = [
    *(torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.uint8, torch.int16),
    *(torch.int32, torch.int64, torch.bool, torch.float32),
]


def value_of(rng):
    """A value of any type."""
    kind = rng.randrange(8)
    if kind < 4:
        return rng.choice(NUMBERS)
    if kind < 6:
        return rng.choice(TEXTS)
    return rng.choice(OTHERS) if kind < 7 else rng.randrange(-300, 300)


def likely(name, rng):
    """A value for a field, more often than not of its type."""
    if rng.random() < 0.3:
        return value_of(rng)
    return rng.choice(LIKELY.get(name, (0.0, 1e-8, 0.1, 1.0, 2, 100.0)))


@cache
def originals():
    """The files of all models: their bytes, tensors and metadata."""
    found = []
    with TemporaryDirectory() as folder:
        for model in packed().values():
            path = f"{folder}/model.safetensors"
            model.save(path)
            with open(path, "rb") as file:
                content = file.read()
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                found.append((content, tensors, file.metadata()))
    return found


def mutated(seed):
    """The bytes of a file.

    Args:
        seed (int): What decides about them.
    """
    rng = random.Random(seed)
    content, tensors, metadata = originals()[seed % len(originals())]
    if rng.random() < 0.1:
        return rng.choice(OF_BYTES)(bytearray(content), rng)
    tensors, metadata = dict(tensors), dict(metadata)
    steps = json.loads(metadata["program"])
    if seed % 13 == 3:  # Alone, and with numbers of its own: no other file depends on it.
        swap_types(steps, random.Random(f"types of {seed}"))
        metadata["program"] = json.dumps(steps)
        metadata["sha256"] = checksum(tensors, metadata)
        return save(tensors, metadata)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kind = rng.random()
        if kind < 0.4 and tensors:
            rng.choice(OF_TENSORS)(tensors, rng)
        elif kind < 0.95 and steps:
            rng.choice(OF_STEPS)(steps, rng, tensors)
        else:
            rng.choice(OF_METADATA)(metadata, rng)
    if metadata.get("program") == originals()[seed % len(originals())][2]["program"]:
        metadata["program"] = json.dumps(steps)
    if rng.random() < 0.02 and "program" in metadata:
        metadata["program"] = damaged_text(metadata["program"], rng)
    metadata["sha256"] = checksum(tensors, metadata)
    return save(tensors, metadata)


# Of bytes, as a bad disk or connection makes them.


def flip_bits(content, rng):
    for _ in range(rng.choice((1, 1, 8))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def truncate(content, rng):
    return bytes(content[: rng.randrange(len(content))])


def extend(content, rng):
    return bytes(content) + rng.randbytes(rng.choice((1, 8, 1000)))


def change_length(content, rng):
    content[:8] = rng.choice((0, 1, 2**16, 2**24, 2**40, 2**63, 2**64 - 1)).to_bytes(8, "little")
    return bytes(content)


def change_header(content, rng):
    """What the file says of a tensor: its type, shape or place."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    name = rng.choice(sorted(header.keys() - {"__metadata__"}))
    field = rng.choice(("dtype", "shape", "data_offsets", "more"))
    header[name][field] = rng.choice(
        (value_of(rng), "F16", "I64", "F8_E4M3", "U8", [0], [2**62, 4])
    )
    text = json.dumps(header).encode("utf-8", "replace")
    return len(text).to_bytes(8, "little") + text + bytes(content[8 + size :])


OF_BYTES = [flip_bits, truncate, extend, change_length, change_header]


# Of tensors.


def flip_numbers(tensors, rng):
    name = rng.choice(sorted(tensors))
    tensor = tensors[name] = tensors[name].clone()
    raw = tensor.reshape(-1).view(torch.uint8)
    for _ in range(rng.choice((1, 4, 64)) if len(raw) else 0):
        raw[rng.randrange(len(raw))] = rng.randrange(256)


def fill(tensors, rng):
    name = rng.choice(sorted(tensors))
    value = rng.choice((0.0, 1e-45, 1e38, -1e38, float("inf"), float("nan")))
    given = tensors[name]
    if given.is_floating_point():  # What 16 bits do not hold becomes infinite.
        tensors[name] = torch.full(given.shape, value, dtype=torch.float64).to(given.dtype)


def change_type(tensors, rng):
    name = rng.choice(sorted(tensors))
    tensors[name] = tensors[name].to(rng.choice(DTYPES))


def change_shape(tensors, rng):
    name = rng.choice(sorted(tensors))
    tensor = tensors[name]
    size = rng.choice((0, 1, 2, 3, 5, 8, 17, 64, 100))
    tensors[name] = (
        rng.choice(
            (
                lambda: tensor.reshape(-1),
                lambda: tensor.unsqueeze(0),
                lambda: tensor.unsqueeze(-1),
                lambda: tensor.t() if tensor.dim() == 2 else tensor,
                lambda: tensor[:size],
                lambda: tensor[..., :size],
                lambda: torch.cat([tensor] * 2),
                lambda: tensor.new_zeros(size),
                lambda: tensor.new_zeros(size, size),
                lambda: tensor.new_zeros(()),
            )
        )()
        .contiguous()
        .clone()
    )


def swap(tensors, rng):
    one, other = rng.choice(sorted(tensors)), rng.choice(sorted(tensors))
    tensors[one], tensors[other] = tensors[other].clone(), tensors[one].clone()


def remove(tensors, rng):
    del tensors[rng.choice(sorted(tensors))]


def rename(tensors, rng):
    tensors[f"{rng.randrange(9)}.{rng.choice(['weight', 'bias', 'scale', 'x'])}"] = tensors.pop(
        rng.choice(sorted(tensors))
    )


OF_TENSORS = [
    *(flip_numbers,) * 4,
    *(fill, fill, change_type, change_shape, swap, remove, rename),
]


# Of steps.


def change_attribute(steps, rng, tensors):
    step = rng.choice(steps)
    attrs = step.setdefault("attrs", {})
    if not isinstance(attrs, dict):
        return
    known = sorted(attrs)
    name = rng.choice(known) if known and rng.random() < 0.9 else rng.choice(FIELDS)
    attrs[name] = likely(name, rng)


def swap_types(steps, rng):
    """Writes an integer as a float or the other way round: the same value, or one that only the
    other type holds."""
    numbers = [
        (fields, name)
        for step in steps
        for fields in (step["attrs"], step["edges"] or {})
        for name, value in sorted(fields.items())
        if type(value) in (int, float)
    ]
    for fields, name in rng.sample(numbers, min(len(numbers), rng.choice((1, 1, 2)))):
        value = fields[name]
        if type(value) is int:
            fields[name] = rng.choice((float(value), float(value), value + 0.5))
        else:
            fields[name] = rng.choice((round(value), 0, 1, 1, -1, 2**80, 2**53 + 1, 10**30))


def remove_attribute(steps, rng, tensors):
    attrs = rng.choice(steps).get("attrs")
    if isinstance(attrs, dict) and attrs:
        del attrs[rng.choice(sorted(attrs))]


def change_field(steps, rng, tensors):
    step = rng.choice(steps)
    step[rng.choice([*sorted(step), "more", "shared"])] = value_of(rng)


def remove_field(steps, rng, tensors):
    step = rng.choice(steps)
    if step:
        del step[rng.choice(sorted(step))]


def change_operator(steps, rng, tensors):
    rng.choice(steps)["op"] = rng.choice(TEXTS)


def change_inputs(steps, rng, tensors):
    place = rng.randrange(len(steps))
    inputs = steps[place].get("inputs")
    if not isinstance(inputs, list):
        return
    number = rng.choice((rng.randrange(len(steps) + 1), rng.randrange(place + 1), value_of(rng)))
    kind = rng.randrange(3)
    if kind == 0 and inputs:
        inputs[rng.randrange(len(inputs))] = number
    elif kind == 1:
        inputs.append(number)
    else:
        steps[place]["inputs"] = [number] * rng.choice((0, 1, 2, 3, 100))


def change_edges(steps, rng, tensors):
    found = [step for step in steps if isinstance(step.get("edges"), dict)]
    edges = rng.choice(found)["edges"] if found else {}
    name = rng.choice([*sorted(edges), "relation"])
    edges[name] = likely(name, rng)


def move_steps(steps, rng, tensors):
    one, other = rng.randrange(len(steps)), rng.randrange(len(steps))
    steps[one], steps[other] = steps[other], steps[one]


def remove_step(steps, rng, tensors):
    del steps[rng.randrange(len(steps))]


def repeat_step(steps, rng, tensors):
    step = json.loads(json.dumps(rng.choice(steps)))
    inputs = step.get("inputs")
    count = len(inputs) if isinstance(inputs, list) else 1
    for _ in range(rng.choice((1, 2, 40, 400))):
        steps.append(step | {"inputs": [len(steps)] * count})


def add_step(steps, rng, tensors):
    """A step that reads the last value, once or more, as often as it says."""
    op = rng.choice(sorted(OPS))
    attrs = {
        "act": {"kind": rng.choice(("relu", "elu", "tanh", "save")), "alpha": 1.0},
        "aggregate": {"reduce": "sum"},
        "attend": {"heads": rng.choice((1, 3, 300)), "concat": True, "slope": 0.2},
        "quantize": {"bits": 8, "full_range": False, "eps": 1e-8},
        "layer_norm": {"over": rng.choice(("row", "graph")), "eps": 1e-5},
        "linear": {"bits": None, "rescale_bias": False},
    }
    edges = {"norm": None, "self_loops": False, "fill": 1.0, "weighted": False}
    own = attrs.get(op, {})
    if own.get("kind") != "elu":
        own.pop("alpha", None)
    for _ in range(rng.choice((1, 1, 2, 40, 2000))):
        last = len(steps)
        steps.append(
            {
                "op": op,
                "inputs": [last] * rng.choice((1, 2)),
                "name": "",
                "attrs": own,
                "tensors": [],
                "trits": {},
                "edges": edges if op in ("aggregate", "attend") else None,
            }
        )


def change_trits(steps, rng, tensors):
    found = [step for step in steps if isinstance(step.get("trits"), dict)]
    if not found:
        return
    trits = rng.choice(found)["trits"]
    name = rng.choice([*sorted(trits), "weight", "bias"])
    shape = trits.get(name)
    if isinstance(shape, list) and shape and rng.random() < 0.7:
        trits[name] = rng.choice((shape[::-1], [*shape, 1], [*shape[:-1], rng.choice(NUMBERS)]))
    else:
        trits[name] = value_of(rng)


def share(steps, rng, tensors):
    step = rng.choice(steps)
    names = step.get("tensors") or ["weight"]
    if isinstance(names, list) and tensors:
        key = rng.choice([*sorted(tensors), "99.weight", 3])
        step["shared"] = {str(rng.choice(names)): key}


OF_STEPS = [
    *(change_attribute,) * 4,
    *(change_inputs,) * 3,
    *(remove_attribute, change_field, remove_field, change_operator, change_edges, move_steps),
    *(remove_step, repeat_step, add_step, change_trits, share),
]


# Of the rest.


def change_metadata(metadata, rng):
    name = rng.choice([*sorted(metadata), "more"])
    metadata[name] = rng.choice(
        ("", "1", "-1", "2", "3", "9" * 5000, "null", "[]", "{}", '{"a": 1}')
    )


def remove_metadata(metadata, rng):
    metadata.pop(rng.choice(sorted(metadata)), None)


def damaged_text(text, rng):
    place = rng.randrange(len(text) + 1)
    piece = rng.choice(
        ("[", "]", "{", '"', ",", "0", "9" * 5000, "NaN", "-Infinity", "1e999", "\\ud800")
    )
    return rng.choice(
        (
            text[:place] + piece + text[place + rng.randrange(2) :],
            text[:place],
            "[" * 10**5 + "]" * 10**5,
            '[{"op":' * 2000,
            "[" + "[]," * 10**5 + "0]",
        )
    )


def damage(metadata, rng):
    name = rng.choice(("program", "about"))
    metadata[name] = damaged_text(metadata.get(name, ""), rng)


OF_METADATA = [change_metadata, remove_metadata, damage]
