"""What a table shows of a training curve: cross-entropy on the teacher's text, in nats a token.

Methods train and select by different objectives. Their cross-entropies on the same validation
rows can be compared, and how far these part from those of the training rows.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from kd.errors import ArtifactError

TRAIN, VALIDATION = "cross_entropy", "validation_cross_entropy"
Record = Mapping[str, Any]


def curve_value(path: Path, metric: str) -> float:
    """A number about the training curve in `path` (`train.jsonl`).

    - lowest_validation_ce: the lowest of all validations;
    - last_validation_ce: that of the last one;
    - validation_rise: the last minus the lowest, 0 for a run that still improved at its end;
    - generalisation_gap: the last minus the mean over the training steps since the validation
      before it.

    Raises:
        ArtifactError: the file is missing or malformed, or has no validation.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        records: list[Record] = [json.loads(line) for line in lines]
        curve = [record[VALIDATION] for record in records if VALIDATION in record]
        lowest, last = min(curve), curve[-1]
        if metric == "generalisation_gap":
            return float(last - fmean(_latest_steps(records)))
        values = {"lowest_validation_ce": lowest, "last_validation_ce": last}
        return float((values | {"validation_rise": last - lowest})[metric])
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ArtifactError(
            f"{path}: no '{metric}' to read ({error}). Re-run `kd distill`."
        ) from None


def _latest_steps(records: Sequence[Record]) -> list[float]:
    """Cross-entropies of the training steps between the last two validations."""
    validations = [index for index, record in enumerate(records) if VALIDATION in record]
    start = validations[-2] if len(validations) > 1 else 0
    return [record[TRAIN] for record in records[start:] if TRAIN in record]
