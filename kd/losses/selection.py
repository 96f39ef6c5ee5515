"""Rows of padded batches: those of answer tokens, out of all positions."""

from torch import Tensor


def select_rows(table: Tensor, sequence: Tensor, position: Tensor) -> Tensor:
    """Rows [N, V] of `table` [B, T, V]: a view if they follow each other in memory, else a copy.

    What comes back may therefore not be written to.
    """
    view = adjacent_rows(table, sequence, position)
    if view is not None:
        return view
    if table.is_contiguous():  # whole rows are copied faster than by two indices
        return table.view(-1, table.shape[-1]).index_select(0, sequence * table.shape[1] + position)
    return table[sequence, position]


def adjacent_rows(table: Tensor, sequence: Tensor, position: Tensor) -> Tensor | None:
    """A view [N, V] of rows that follow each other in the memory of `table`, if they do."""
    # Elsewhere than on a CPU the question would take longer than the copy.
    if table.device.type != "cpu" or not table.is_contiguous() or not len(sequence):
        return None
    places = (sequence * table.shape[1] + position).tolist()
    rows = range(places[0], places[0] + len(places))
    if places != list(rows):
        return None
    return table.view(-1, table.shape[-1])[rows.start : rows.stop]
