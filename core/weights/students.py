"""The file of a one-step student, whatever its method: what it must be, and what its metadata tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from ..errors import BadValueError, WeightsError
from ..folders import confined
from .files import read_weights

Constants = TypeVar("Constants")


@dataclass(frozen=True)
class Student:
    """tensors by name, and config: the metadata of files of ours, {} for published ones."""

    path: Path
    tensors: dict[str, Tensor]
    config: dict[str, Any]

    @property
    def where(self) -> str:
        """For messages."""
        return str(self.path)

    def constants(self, numbers: type[Constants]) -> Constants:
        """The method's one-step numbers. Raises WeightsError for those of another method."""
        try:
            return numbers(**self.config.get("one_step", {}))
        except (TypeError, BadValueError) as error:
            way_out = "Choose a file of that method."
            raise WeightsError(f"its one_step numbers are not those of the method: {error}", where=self.where, way_out=way_out) from error

    def vae_place(self, otherwise: str = "embedded") -> Path | str:
        """`embedded`, or the file or folder beside the student that its metadata names, as read_vae() takes it."""
        name = self.config.get("vae", otherwise)
        return "embedded" if name == "embedded" else confined(self.path.parent, str(name))

    def take(self, name: str) -> Tensor:
        """A tensor that a whole file must have, out of the others. Raises WeightsError."""
        if name not in self.tensors:
            raise WeightsError(f"tensor {name} is missing.", where=self.where, way_out="The file is not whole: copy it again.")
        return self.tensors.pop(name)


def read_student(path: Path, kind: str) -> Student:
    """The file's tensors and metadata. Raises WeightsError when it cannot be read or says that it is of another kind."""
    tensors, config = read_weights(path)
    if config.get("kind", kind) != kind:
        raise WeightsError(f"holds {config['kind']}, not {kind}.", where=str(path), way_out="Choose a file of that method.")
    return Student(path, tensors, config)
