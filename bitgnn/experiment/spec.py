import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

# Part of every key. Raise it when a change makes the same configuration give other numbers.
RESULT_VERSION = 2


@dataclass(frozen=True)
class RunSpec:
    r"""All that determines the numbers of one run, as plain values.

    Where a run takes place (device, machine, versions) is not part of it, but stands in the
    passport of its record.

    Args:
        dataset (str): The canonical name of the data set.
        split_kind (str): The kind of split.
        checksum (str): The checksum of the data set.
        model (str): The name of the model.
        precision (str): :obj:`"fp32"`, :obj:`"fp32-distilled"`, or the measure of the weight
            scale.
        quant (dict, optional): The fields of the :class:`~bitgnn.quant.QuantConfig`;
            :obj:`None` in full precision.
        recipe (dict): The fields of the :class:`~bitgnn.training.Recipe`.
        seed (int): The seed of the split, the initial weights and dropout.
        teacher (dict, optional): The :obj:`model` and the :obj:`recipe` of the 32-bit run that
            the recipe takes as teacher. (default: :obj:`None`)
    """

    dataset: str
    split_kind: str
    checksum: str
    model: str
    precision: str
    quant: dict[str, Any] | None
    recipe: dict[str, Any]
    seed: int
    teacher: dict[str, Any] | None = None

    def teacher_spec(self) -> "RunSpec | None":
        """Returns the run that is the teacher of this one, :obj:`None` without one."""
        if self.teacher is None:
            return None
        return RunSpec(
            self.dataset,
            self.split_kind,
            self.checksum,
            self.teacher["model"],
            "fp32",
            None,
            self.teacher["recipe"],
            self.seed,
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields as plain values, fit for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunSpec":
        """The inverse of :meth:`to_dict`."""
        return cls(**values)

    @property
    def key(self) -> str:
        """The SHA-256 of all fields, which the result store is keyed by."""
        values = {**self.to_dict(), "version": RESULT_VERSION}
        text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.dataset} {self.model} {self.precision} seed {self.seed}"
