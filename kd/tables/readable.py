"""What markdown and LaTeX say alike: cells as text, and sentences about the whole table."""

from kd.experiment.metrics import direction_sentences, joined, metric_named, unit_text
from kd.tables.cells import Cell, Line, gain_columns, score_columns, shown_axes
from kd.tables.content import Content, MeanGain
from kd.tables.statistics import SIGNIFICANT

NOT_AVAILABLE = "n/a"
SIGNIFICANCE = "*"  # behind a gain that is significant after Holm's correction


def headers(content: Content) -> list[str]:
    """The columns for reading; statistics stand in the cell that they belong to."""
    first, *rest = shown_axes(content.spec)
    return [first, "metric", *rest, *score_columns(content.spec), *gain_columns(content.spec)]


def cells(content: Content, line: Line) -> list[str]:
    """One line's texts, in the order of `headers`."""
    first, *rest = shown_axes(content.spec)
    return [
        str(line.axes[first]),
        line.metric,
        *(str(line.axes[axis]) for axis in rest),
        *(score_text(line.cells[column], line.metric) for column in score_columns(content.spec)),
        *(gain_text(content, line, column) for column in gain_columns(content.spec)),
    ]


def score_text(cell: Cell, metric: str) -> str:
    """Mean and, with several seeds, standard deviation: `71.39 ± 0.42`."""
    if cell.value is None:
        return NOT_AVAILABLE
    digits = metric_named(metric).decimals
    spread = "" if cell.sd is None else f" ± {cell.sd:.{digits}f}"
    return f"{cell.value:.{digits}f}{spread}"


def gain_text(content: Content, line: Line, column: str) -> str:
    """Gain, interval and mark of significance: `+2.50 [+1.20, +3.80]*`."""
    value, found = line.cells[column].value, content.comparison(line, column)
    if value is None:
        return NOT_AVAILABLE
    digits = metric_named(line.metric).decimals
    if found is None or found.low is None or found.high is None:
        return f"{value:+.{digits}f}"
    mark = SIGNIFICANCE if found.p_holm is not None and found.p_holm <= SIGNIFICANT else ""
    return f"{value:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]{mark}"


def seeds_text(content: Content) -> str:
    """How many seeds the cells rest on."""
    count = len(content.spec.seeds)
    return "one seed" if count == 1 else f"mean ± standard deviation over {count} seeds"


def interval_notes(content: Content) -> list[str]:
    """What gains mean, what their intervals cover, and what the mark means."""
    metrics = [line.metric for line in content.lines]
    if not gain_columns(content.spec):
        return []
    count = sum(found.p is not None for found in content.comparisons.values())
    first = f"Gains are in {unit_text(metrics)} over {content.spec.baseline}; positive is better"
    if not count:
        return [f"{first}. There are no intervals.", *direction_sentences(metrics)]
    one = len(content.spec.seeds) == 1
    gains = "gain" if count == 1 else "gains"
    return [
        f"{first}, with 95 % intervals by a paired bootstrap over "
        f"{'examples' if one else 'examples × seeds'}.",
        *direction_sentences(metrics),
        *_whole_notes(metrics, one_seed=one),
        *([ONE_SEED] if one else []),
        f"{SIGNIFICANCE} significant at 5 % after Holm's correction over the {count} {gains} of "
        "this table" + (", over test examples only." if one else "."),
    ]


ONE_SEED = (
    "One seed: the intervals, and every verdict from them, are over test examples only. They are "
    "about these trained models, and say nothing of training them again with another seed."
)


def _whole_notes(metrics: list[str], *, one_seed: bool) -> list[str]:
    """What the intervals of values cover that no example has of its own."""
    whole = list(dict.fromkeys(name for name in metrics if not metric_named(name).per_example))
    if not whole:
        return []
    if one_seed:
        return [f"No example has {joined(whole)} of its own: at one seed they have no interval."]
    return [f"No example has {joined(whole)} of its own: their intervals are over seeds only."]


def mean_sentences(content: Content) -> list[str]:
    """Each method's mean gain, where a line does not say it already."""
    told = [mean for mean in content.means if mean.lines > 1 or not content.spec.one_method_a_line]
    return [_mean_sentence(content, mean) for mean in told]


def _mean_sentence(content: Content, mean: MeanGain) -> str:
    metric = metric_named(content.lines[0].metric)
    digits = metric.decimals
    interval = "" if mean.low is None else f" [{mean.low:+.{digits}f}, {mean.high:+.{digits}f}]"
    only = " (over examples only)" if mean.over == "examples" else ""
    word = "higher" if metric.better == "neither" else "better"
    lines = "line" if mean.lines == 1 else "lines"
    return (
        f"{mean.method} against {content.spec.baseline}: {mean.value:+.{digits}f}{interval} "
        f"{metric.unit} on average{only}, {word} in {mean.better} of {mean.lines} {lines}."
    )


def missing_sentences(content: Content) -> list[str]:
    """Why cells are empty."""
    reasons = {cell.unavailable for line in content.lines for cell in line.cells.values()}
    return [f"{NOT_AVAILABLE}: {reason}" for reason in sorted(filter(None, reasons))]


def published_rows(content: Content) -> list[list[str]]:
    """Published, ours, difference and whether it lies inside, cell by cell; [] if none."""
    axes = shown_axes(content.spec)
    rows = []
    for line in content.lines:
        for column in content.published_columns:
            beside = content.beside(line, column)
            if beside is None:
                continue
            rows.append(
                [
                    *(str(line.axes[axis]) for axis in axes),
                    line.method(column),
                    line.metric,
                    f"{beside.published.value:.2f}",
                    score_text(line.cells[column], line.metric),
                    NOT_AVAILABLE if beside.difference is None else f"{beside.difference:+.2f}",
                    "–"
                    if beside.prediction is None
                    else f"[{beside.prediction[0]:.2f}, {beside.prediction[1]:.2f}]",
                    "–" if beside.inside is None else "yes" if beside.inside else "no",
                ]
            )
    return rows


def published_headers(content: Content) -> list[str]:
    """The columns of `published_rows`."""
    return [
        *shown_axes(content.spec),
        "column",
        "metric",
        "published",
        "ours",
        "difference",
        "prediction interval",
        "inside",
    ]


def published_notes(content: Content) -> list[str]:
    """What is to be known of published values that are shown, with the cells it is about."""
    about: dict[str, list[str]] = {}
    for line in content.lines:
        for column in content.published_columns:
            beside = content.beside(line, column)
            if beside is not None and beside.published.note:
                axes = "/".join(str(line.axes[axis]) for axis in shown_axes(content.spec))
                about.setdefault(beside.published.note, []).append(f"{column} of {axes}")
    return [f"{', '.join(cells)}: {note}" for note, cells in about.items()]
