"""From work to seconds: by what the same work took before, here or on the reference machine."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Literal

from kd.plan.history import Measured
from kd.plan.work import Work

Origin = Literal["measured here", "reference machine", "limits of the GPU", "unknown"]

# Starting a job, and Snakemake's own work for it, on the reference machine.
OVERHEAD = 0.3
DOWNLOAD = "fetch"  # as long as a network takes
COMPARABLE = 3.0  # work of up to so many times another's extent has its seconds a unit


@dataclass(frozen=True)
class Estimate:
    """Seconds that a job takes, and where the figure is from."""

    seconds: float
    origin: Origin


class Estimator:
    """Estimates a job's time from the history of this machine, or else from the reference's."""

    def __init__(self, here: Iterable[Measured], reference: Iterable[Measured]) -> None:
        """Prefer `here`; figures of `reference` are scaled to this machine's speed."""
        measured = list(here)
        self._here, self._reference = _Rates(measured), _Rates(reference)
        self.speed = self._relative_speed(measured)

    def estimate(self, work: Work) -> Estimate:
        """The time of a job, with its overhead.

        What was measured here counts if it is of the same kind and extent. If not, what the
        reference machine took for that kind tells more.
        """
        here, there = self._here.find(work), self._reference.find(work)
        if here is not None and (there is None or here.closeness >= there.closeness):
            return Estimate(here.seconds + OVERHEAD, "measured here")
        if there is not None:
            return Estimate(there.seconds * self.speed + OVERHEAD, "reference machine")
        unknown = work.units > 1 or work.stage == DOWNLOAD
        return Estimate(OVERHEAD, "unknown" if unknown else "reference machine")

    def estimate_real(self, work: Work, modelled: float | None) -> Estimate:
        """The time of a job with a real model: of the same model here, or else what is `modelled`.

        What the reference machine took for micro models says nothing of it.
        """
        here = self._here.find(work)
        if here is not None and here.closeness[1] > 0:
            return Estimate(here.seconds + OVERHEAD, "measured here")
        if modelled is not None:
            return Estimate(modelled, "limits of the GPU")
        return Estimate(OVERHEAD, "unknown")

    def _relative_speed(self, measured: Iterable[Measured]) -> float:
        """How much longer work takes here than on the reference machine, where both know it."""
        ratios = []
        for one in measured:
            there = self._reference.find(one.work)
            if there is not None and there.closeness == (True, len(one.work.traits)):
                ratios.append(one.seconds / there.seconds)
        return median(ratios) if ratios else 1.0


@dataclass(frozen=True)
class _Found:
    seconds: float
    closeness: tuple[bool, int]  # whether its extent is comparable, and traits in common


class _Rates:
    """Seconds a unit by stage and traits, from the most to the least specific."""

    def __init__(self, measured: Iterable[Measured]) -> None:
        self._by_traits: dict[tuple[str, ...], list[Measured]] = {}
        for one in measured:
            for key in _keys(one.work) if one.work.units > 0 else ():
                self._by_traits.setdefault(key, []).append(one)

    def find(self, work: Work) -> _Found | None:
        """What history says of `work`: of comparable extent if there is such, and closest in kind.

        A unit of short jobs costs more: reading a model takes as long for few rows as for many.
        """
        found = []
        for key in _keys(work):
            measured = self._by_traits.get(key, [])
            similar = [one for one in measured if _similar(one.work, work)]
            for comparable, chosen in ((True, similar), (False, measured)):
                if chosen:
                    rate = median(one.seconds / one.work.units for one in chosen)
                    found.append(_Found(work.units * rate, (comparable, len(key) - 1)))
        return max(found, key=lambda one: one.closeness, default=None)


def _similar(one: Work, other: Work) -> bool:
    return one.units <= COMPARABLE * other.units and other.units <= COMPARABLE * one.units


def _keys(work: Work) -> list[tuple[str, ...]]:
    """All traits, all but the last, … and none."""
    return [(work.stage, *work.traits[:depth]) for depth in range(len(work.traits), -1, -1)]
