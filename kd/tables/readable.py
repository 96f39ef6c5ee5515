"""What markdown and LaTeX say alike: cells as text, and sentences about the whole table."""

from kd.tables.cells import Cell, Line, gain_columns, score_columns, shown_axes
from kd.tables.content import SIGNIFICANT, Content

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
        *(score_text(line.cells[column]) for column in score_columns(content.spec)),
        *(gain_text(content, line, column) for column in gain_columns(content.spec)),
    ]


def score_text(cell: Cell) -> str:
    """Mean and, with several seeds, standard deviation: `71.39 ± 0.42`."""
    if cell.value is None:
        return NOT_AVAILABLE
    return f"{cell.value:.2f}" if cell.sd is None else f"{cell.value:.2f} ± {cell.sd:.2f}"


def gain_text(content: Content, line: Line, column: str) -> str:
    """Gain, interval and mark of significance: `+2.50 [+1.20, +3.80]*`."""
    value, found = line.cells[column].value, content.comparison(line, column)
    if value is None:
        return NOT_AVAILABLE
    if found is None or found.low is None or found.high is None:
        return f"{value:+.2f}"
    mark = SIGNIFICANCE if found.p_holm is not None and found.p_holm <= SIGNIFICANT else ""
    return f"{value:+.2f} [{found.low:+.2f}, {found.high:+.2f}]{mark}"


def seeds_text(content: Content) -> str:
    """How many seeds the cells rest on."""
    count = len(content.spec.seeds)
    return "one seed" if count == 1 else f"mean ± standard deviation over {count} seeds"


def interval_notes(content: Content) -> list[str]:
    """What the intervals cover, and what the mark means."""
    count = len(content.comparisons)
    if not count:
        return []
    over = "examples × seeds"
    notes = []
    if len(content.spec.seeds) == 1:
        over = "examples"
        notes.append(
            "One seed: the intervals are over test examples only. They are about these trained "
            "models, and do not say how far another seed would be away."
        )
    gains = "gain" if count == 1 else "gains"
    return [
        f"Gains are in points over {content.spec.baseline}, with 95 % intervals by a paired "
        f"bootstrap over {over}.",
        *notes,
        f"{SIGNIFICANCE} significant at 5 % after Holm's correction over the {count} {gains} of "
        "this table.",
    ]


def mean_sentences(content: Content) -> list[str]:
    """Each method's mean gain, where a line does not say it already."""
    told = [mean for mean in content.means if mean.lines > 1 or not content.spec.one_method_a_line]
    found = []
    for mean in told:
        interval = "" if mean.low is None else f" [{mean.low:+.2f}, {mean.high:+.2f}]"
        lines = "line" if mean.lines == 1 else "lines"
        found.append(
            f"{mean.method} against {content.spec.baseline}: {mean.value:+.2f}{interval} points "
            f"on average, better in {mean.better} of {mean.lines} {lines}."
        )
    return found


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
                    score_text(line.cells[column]),
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
