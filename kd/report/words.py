"""Numbers and verdicts as words, the same in the report and on the results page."""

from collections import Counter
from collections.abc import Sequence

from kd.experiment.metrics import direction_sentences, joined, metric_named, unit_text
from kd.report.content import Cell, Mean, Table, Verdict
from kd.report.names import readable
from kd.tables.statistics import SIGNIFICANT

ONE_SEED = (
    "All of it, verdicts on claims included, is about these trained models: it says how other test "
    "examples might differ, and nothing of training again with another seed."
)
OUTCOMES = ("holds", "does not hold", "undecided")


def score_text(cell: Cell, metric: str) -> str:
    """A score in percent (or nats), with its spread over seeds."""
    if cell.value is None:
        return "n/a"
    digits = metric_named(metric).decimals
    spread = f" ± {cell.sd:.{digits}f}" if cell.sd is not None else ""
    return f"{cell.value:.{digits}f}{spread}"


def gain_text(cell: Cell, metric: str) -> str:
    """A gain in points (or nats), with its interval."""
    if cell.value is None:
        return "n/a"
    digits = metric_named(metric).decimals
    return f"{cell.value:+.{digits}f}{interval_text(cell.low, cell.high, digits)}"


def interval_text(low: float | None, high: float | None, digits: int = 2) -> str:
    """An interval in brackets after a value; nothing where there is none."""
    return "" if low is None or high is None else f" [{low:+.{digits}f}, {high:+.{digits}f}]"


def is_significant(cell: Cell) -> bool:
    """Whether a gain or loss stays significant after Holm's correction over its table."""
    return cell.p_holm is not None and cell.p_holm <= SIGNIFICANT


def mean_text(table: Table, mean: Mean) -> str:
    """The mean of a column of gains in a sentence."""
    name = readable(mean.method or table.columns.gains.get(mean.column, mean.column))
    lines = "line" if mean.lines == 1 else "lines"
    metric = metric_named(table.rows[0].metric)
    value = f"{mean.value:+.{metric.decimals}f} {metric.unit}"
    only = ", over examples only" if mean.over == "examples" else ""
    word = "higher" if metric.better == "neither" else "better"
    return (
        f"Mean gain of {name} over {readable(table.baseline)}: {value}"
        f"{interval_text(mean.low, mean.high, metric.decimals)}{only}; {word} in {mean.better} of "
        f"{mean.lines} {lines}"
    )


def unit_sentence(table: Table) -> str:
    """Units of scores and gains, and which way is better."""
    metrics = [row.metric for row in table.rows]
    scores = {"points": "percent"}
    units = dict.fromkeys(metric_named(name).unit for name in metrics)
    told = joined(scores.get(unit, unit) for unit in units)
    first = f"Scores in {told}, gains in {unit_text(metrics)}; a positive gain is better."
    return " ".join([first, *direction_sentences(metrics)])


def basis_text(table: Table) -> str:
    """Seeds and intervals in sentences: what an interval covers, and what it does not."""
    count = len(table.seeds)
    seeds = "One seed." if count == 1 else f"Mean ± standard deviation over {count} seeds."
    covers = {cell.over for row in table.rows for cell in table.gains(row).values() if cell.over}
    if not covers:
        return f"{seeds} No gain has an interval." if table.columns.gains else seeds
    text = f"{seeds} In brackets: {table.level:.0%} interval over {' or '.join(sorted(covers))}"
    text += "; bold: significant at 5 % after Holm's correction over the table."
    whole = [row.metric for row in table.rows if not metric_named(row.metric).per_example]
    if whole:
        what = "at one seed it has no interval" if count == 1 else "its interval is over seeds only"
        text += f" No example has a value of its own by {joined(dict.fromkeys(whole))}: {what}."
    return f"{text} {ONE_SEED}" if covers == {"examples"} else text


def reason_text(verdict: Verdict) -> str:
    """What a verdict rests on: its sentence without the outcome, which stands before it."""
    _, colon, rest = verdict.sentence.partition(": ")
    return rest[:1].upper() + rest[1:] if colon else verdict.sentence


def count_text(verdicts: Sequence[Verdict], not_run: int = 0, *, one_seed: bool) -> str:
    """How many claims hold, in words, and over what.

    Args:
        verdicts: of the claims that were put to the test.
        not_run: claims that were not.
        one_seed: whether the verdicts are over test examples alone.
    """
    counts = Counter[str](verdict.outcome for verdict in verdicts)
    told = {"holds": "hold", "does not hold": "do not hold", "undecided": "are undecided"}
    one = {"holds": "holds", "does not hold": "does not hold", "undecided": "is undecided"}
    parts = [
        f"{counts[outcome]} {(one if counts[outcome] == 1 else told)[outcome]}"
        for outcome in OUTCOMES
        if counts[outcome]
    ]
    if not_run:
        parts.append(f"{not_run} {'was' if not_run == 1 else 'were'} not run")
    total = len(verdicts) + not_run
    claims = "claim" if total == 1 else "claims"
    text = f"Of {total} {claims} {joined(parts)}"
    return f"{text}; with one seed, over test examples only" if one_seed and verdicts else text
