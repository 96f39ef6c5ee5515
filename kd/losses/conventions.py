"""What every loss leaves to its caller: alignment, reduction, temperature, shift."""

from dataclasses import dataclass

from kd.alignment import find_alignment
from kd.errors import LossError, nearest

REDUCTIONS = ("token", "sequence")


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """What every loss leaves to its caller.

    Raises:
        LossError: a value that is not defined.
    """

    alignment: str | None = None  # by default the loss's own
    reduction: str = "token"
    temperature: float = 1.0
    teacher_temperature: float | None = None
    t2_scaling: bool = False
    shift: bool = True
    teacher_shift: bool | None = None

    def __post_init__(self) -> None:
        if self.alignment is not None:
            find_alignment(self.alignment)
        if self.reduction not in REDUCTIONS:
            raise LossError(
                f"'{self.reduction}' is no reduction. {nearest(self.reduction, REDUCTIONS)}"
            )
        if min(self.temperature, self.temperature_of_teacher) <= 0:
            raise LossError("a temperature must be greater than 0.")

    @property
    def temperature_of_teacher(self) -> float:
        """The teacher's own temperature, or the common one."""
        own = self.teacher_temperature
        return self.temperature if own is None else own

    @property
    def shift_of_teacher(self) -> bool:
        """Whether the teacher is a decoder; by default what the student is."""
        return self.shift if self.teacher_shift is None else self.teacher_shift
