"""When a loop of steps keeps its state: every so many steps, by the clock, and when asked to stop.

The clock's interval is no part of an experiment: it changes what a kill costs, never a result.
"""

import os
import sys
import time
from collections.abc import Callable

from kd.errors import TrainingError
from kd.interruption import Interrupted, stop_requested
from kd.parallel.ranks import Ranks
from kd.resume.checkpoints import Checkpoint, CheckpointFolder

SECONDS = "KD_CHECKPOINT_SECONDS"
DEFAULT_SECONDS = 120.0
# Saving may take this share of the time at most: large states are kept less often.
MOST_OVERHEAD = 0.05


class CheckpointSchedule:
    """Keeps the state of one loop in a folder, or nowhere."""

    def __init__(
        self, folder: CheckpointFolder | None, steps: int, ranks: Ranks | None = None
    ) -> None:
        """Keep a state every `steps` steps and every `KD_CHECKPOINT_SECONDS` seconds.

        Of several `ranks` all go on from it, and the first keeps it.

        Raises:
            TrainingError: the environment variable is no positive number.
        """
        self._ranks = ranks or Ranks()
        self._folder = folder
        self._steps = steps
        self._seconds = _seconds()
        self._last = time.monotonic()
        self._took = 0.0

    def newest(self) -> Checkpoint | None:
        """The state to go on from."""
        found = None if self._folder is None else self._folder.newest()
        if found is not None:
            print(f"goes on from the checkpoint of step {found.step}", file=sys.stderr, flush=True)
        return found

    def after(self, step: int, state: Callable[[], Checkpoint]) -> None:
        """Keep `state()` if that is due after `step`.

        Raises:
            Interrupted: a signal asked the process to stop; the state is kept.
        """
        due = self._ranks.first and self._due(step)
        stopping, due = self._ranks.any([stop_requested(), due])  # no two clocks agree
        if self._folder is not None and (stopping or due):
            started = time.monotonic()
            kept = state()
            if self._ranks.first:
                self._folder.save(kept)
            self._last = time.monotonic()
            self._took = self._last - started
        if stopping:
            said = f"The state after step {step} is kept."
            raise Interrupted("" if self._folder is None else said)

    def _due(self, step: int) -> bool:
        interval = max(self._seconds, self._took / MOST_OVERHEAD)
        return step % self._steps == 0 or time.monotonic() - self._last >= interval


def _seconds() -> float:
    text = os.environ.get(SECONDS, str(DEFAULT_SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise TrainingError(f"{SECONDS} is '{text}', but must be a number of seconds above 0.")
    return seconds
