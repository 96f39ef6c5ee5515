"""A table for reading: markdown with gains, claims and, where there are any, published values."""

from collections.abc import Sequence

from tabulate import tabulate

from kd.tables import readable
from kd.tables.claim_sentences import describe
from kd.tables.content import Content


def render_markdown(content: Content) -> str:
    """The table, what it says on average, its claims and the published values."""
    spec = content.spec
    rows = [readable.cells(content, line) for line in content.lines]
    parts = [
        f"# {_escaped(spec.title) or spec.name}",
        f"Experiment `{spec.experiment}`, {readable.seeds_text(content)}.",
        _grid(rows, readable.headers(content)),
        "  \n".join(map(_escaped, readable.interval_notes(content))),
        "\n".join(f"- {_escaped(sentence)}" for sentence in readable.mean_sentences(content)),
        "\n".join(map(_escaped, readable.missing_sentences(content))),
        *_claims(content),
        *_published(content),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _grid(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
    escaped = [[_escaped(text) for text in row] for row in rows]
    return tabulate(escaped, list(headers), tablefmt="github", disable_numparse=True)


def _escaped(text: str) -> str:
    """`text` on one line, what would end a cell or begin emphasis taken literally."""
    return " ".join(text.split()).replace("|", "\\|").replace("*", "\\*")


def _claims(content: Content) -> list[str]:
    if not content.verdicts:
        return []
    rows = [
        [
            claim.name,
            claim.text + (f" ({claim.source})" if claim.source else ""),
            verdict.outcome,
            describe(claim, verdict),
        ]
        for claim, verdict in content.verdicts
    ]
    return ["## Claims", _grid(rows, ["claim", "text", "verdict", "what the scores say"])]


def _published(content: Content) -> list[str]:
    rows = readable.published_rows(content)
    if not rows:
        return []
    notes = [f"- {_escaped(note)}" for note in readable.published_notes(content)]
    return [
        "## Beside the published figures",
        _grid(rows, readable.published_headers(content)),
        "The interval is where one more run of ours would fall in 95 of 100 cases; it needs "
        "three seeds.",
        "\n".join(notes),
    ]
