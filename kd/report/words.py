"""Numbers and verdicts as words, the same in the report and on the results page."""

from collections import Counter
from collections.abc import Sequence

from kd.report.content import Cell, Mean, Table, Verdict
from kd.report.names import readable

SIGNIFICANT = 0.05
OUTCOMES = ("holds", "does not hold", "undecided")


def score_text(cell: Cell) -> str:
    """A score in percent, with its spread over seeds."""
    if cell.value is None:
        return "n/a"
    spread = f" ± {cell.sd:.2f}" if cell.sd is not None else ""
    return f"{cell.value:.2f}{spread}"


def gain_text(cell: Cell) -> str:
    """A gain in points, with its interval."""
    if cell.value is None:
        return "n/a"
    return f"{cell.value:+.2f}{interval_text(cell.low, cell.high)}"


def interval_text(low: float | None, high: float | None) -> str:
    """An interval in brackets after a value; nothing where there is none."""
    return "" if low is None or high is None else f" [{low:+.2f}, {high:+.2f}]"


def is_significant(cell: Cell) -> bool:
    """Whether a gain or loss stays significant after Holm's correction over its table."""
    return cell.p_holm is not None and cell.p_holm <= SIGNIFICANT


def mean_text(table: Table, mean: Mean) -> str:
    """The mean of a column of gains in a sentence."""
    name = readable(mean.method or table.columns.gains.get(mean.column, mean.column))
    lines = "line" if mean.lines == 1 else "lines"
    return (
        f"Mean gain of {name} over {readable(table.baseline)}: {mean.value:+.2f} points"
        f"{interval_text(mean.low, mean.high)}; better in {mean.better} of {mean.lines} {lines}"
    )


def basis_text(table: Table) -> str:
    """Seeds and intervals in sentences: what an interval covers, and what it does not."""
    count = len(table.seeds)
    seeds = "One seed." if count == 1 else f"Mean ± standard deviation over {count} seeds."
    covers = {cell.over for row in table.rows for cell in table.gains(row).values() if cell.over}
    if not covers:
        return seeds
    text = f"{seeds} In brackets: {table.level:.0%} interval over {' or '.join(sorted(covers))}"
    text += "; bold: significant at 5 % after Holm's correction over the table."
    if covers == {"examples"}:
        text += " It is about these trained models: with another seed a gain may fall outside."
    return text


def reason_text(verdict: Verdict) -> str:
    """What a verdict rests on: its sentence without the outcome, which stands before it."""
    _, colon, rest = verdict.sentence.partition(": ")
    return rest[:1].upper() + rest[1:] if colon else verdict.sentence


def count_text(verdicts: Sequence[Verdict]) -> str:
    """How many claims hold, in words."""
    counts = Counter[str](verdict.outcome for verdict in verdicts)
    told = {"holds": "hold", "does not hold": "do not hold", "undecided": "are undecided"}
    parts = [f"{counts[outcome]} {told[outcome]}" for outcome in OUTCOMES if counts[outcome]]
    return f"Of {len(verdicts)} claims {', '.join(parts)}"
