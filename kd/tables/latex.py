r"""A table for print: LaTeX that needs the package booktabs and nothing else.

The file is a whole `table` environment for `\input`. All text that a user can write is escaped,
so that the file compiles whatever names and titles say.
"""

import unicodedata

from kd.tables import readable
from kd.tables.cells import shown_axes
from kd.tables.content import Content

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "*": r"$^{*}$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "→": r"$\rightarrow$",
    "λ": r"$\lambda$",
    "–": "--",
    "—": "---",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "…": r"\ldots{}",
}


def escaped(text: str) -> str:
    """`text` for LaTeX in ASCII alone; letters lose accents, what is left becomes '?'."""
    return "".join(_ESCAPES.get(char) or _plain(char) for char in text)


def _plain(char: str) -> str:
    if char.isascii():
        return char if char.isprintable() else " "
    letters = unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode()
    return "".join(_ESCAPES.get(one, one) for one in letters) or "?"


def render_latex(content: Content) -> str:
    """The table as a floating environment with caption, label and notes."""
    spec = content.spec
    names = readable.headers(content)
    axes = len(shown_axes(spec)) + 1  # and the metric
    notes = [
        *readable.interval_notes(content),
        *readable.mean_sentences(content),
        *readable.missing_sentences(content),
    ]
    caption = f"{spec.title or spec.name} ({spec.experiment}, {readable.seeds_text(content)})."
    lines = [
        r"% Needs \usepackage{booktabs}.",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(caption)}}}",
        rf"\label{{tab:{spec.experiment}-{spec.name}}}",
        r"\footnotesize",
        rf"\begin{{tabular}}{{{'l' * axes}{'r' * (len(names) - axes)}}}",
        r"\toprule",
        _row(names),
        r"\midrule",
        *(_row(readable.cells(content, line)) for line in content.lines),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\smallskip {escaped(note)}" for note in notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _row(texts: list[str]) -> str:
    # Braces keep a cell that begins with a bracket from being read as an option of \\.
    return " & ".join(f"{{{escaped(text)}}}" for text in texts) + r" \\"
