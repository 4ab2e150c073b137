"""The errors a person may meet. Each says what was wrong, where, and the way out."""

from __future__ import annotations


class KintsugiError(Exception):
    """Root of every error that is shown to a person without a traceback.

    what: the fault, with found and expected values. where: file, node or input. way_out: what to do now.
    """

    def __init__(self, what: str, *, where: str | None = None, way_out: str | None = None) -> None:
        self.what, self.where, self.way_out = what, where, way_out
        head = f"{where}: {what}" if where else what
        super().__init__(f"{head} {way_out}" if way_out else head)


class BadValueError(KintsugiError):
    """A size, number, choice or tensor that cannot be worked with."""


class PictureError(KintsugiError):
    """A picture file that cannot be read or written."""


class FileAccessError(KintsugiError):
    """A path that is missing, unreadable, unwritable, or outside the folder it must stay in."""


class WeightsError(KintsugiError):
    """A weights file that is missing, of another kind, or has unknown, missing or misshapen tensors."""


class WorkflowError(KintsugiError):
    """A workflow or prompt that cannot be read, converted or validated."""


class RecipeError(KintsugiError):
    """A training recipe with unknown or impossible entries."""


class MissingPackageError(KintsugiError):
    """An optional package that a feature needs and that is not installed."""


class OutOfMemoryError(KintsugiError):
    """The smallest tile still does not fit the device, or a result would not fit the memory of the machine."""


class Interrupted(Exception):  # noqa: N818
    """The person cancelled. Not a KintsugiError, so that "go on with the next picture" handlers let it pass."""
