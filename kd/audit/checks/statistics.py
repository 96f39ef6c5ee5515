"""G. Statistics: how much of a difference is chance, over seeds and over test rows."""

from collections.abc import Iterator
from itertools import chain as joined

from pydantic import JsonValue

from kd.audit.cell_scores import sample_of
from kd.audit.findings import Finding
from kd.audit.notes import STATISTICS, Voice, cell_name, counted, some
from kd.audit.scope import Scope, TableView
from kd.errors import KdError
from kd.experiment.claims import Place
from kd.tables.cells import score_columns
from kd.tables.samples import gains
from kd.tables.seed_noise import Matrix
from kd.tables.statistics import Comparison, compare, spread


def check(scope: Scope) -> list[Finding]:
    """Seeds and their spread, differences from the baseline, and stability of their sign."""
    voice = Voice(STATISTICS, scope)
    views = [view for view in scope.tables if view.spec is not None and view.lines]
    if not views:
        return [voice.not_applicable("seeds", "no table in scope whose scores can be read")]
    rules = (_seeds, _differences)
    return list(joined.from_iterable(rule(voice, view) for view in views for rule in rules))


def _seeds(voice: Voice, view: TableView) -> Iterator[Finding]:
    assert view.spec is not None
    cells = [
        (cell_name(line, column), spread(list(cell.per_seed.values())))
        for line in view.lines
        for column, cell in line.cells.items()
        if cell.per_seed and column in score_columns(view.spec)
    ]
    if not cells:
        return
    known = [(found.sd, name) for name, found in cells if found.sd is not None]
    if len(known) < len(cells):
        yield voice.about(
            "warn",
            "seeds",
            view.artifact,
            "one seed: how far another seed would be away is not known",
            f"{voice.make_all()} --config seeds=3",
        )
        return
    fewest = min(found.n for _, found in cells)
    sd, widest = max(known)
    yield voice.passed(
        "seeds",
        f"{view.artifact.name}: {counted(fewest, 'seed')}; the largest standard deviation among "
        f"them is {sd:.2f} points ({widest})",
    )


def _differences(voice: Voice, view: TableView) -> Iterator[Finding]:
    """Each gain with its 95 % interval, and Holm's correction over the table."""
    assert view.spec is not None
    try:
        matrices = gains(view.spec, sample_of(voice.scope, view))
    except KdError as error:
        yield voice.not_applicable("differences", f"scores cannot be compared: {error}")
        return
    if not matrices:
        return
    found = compare(matrices, view.artifact.name)
    unclear = [_name(key) for key, one in found.items() if one.p_holm is None or one.p_holm > 0.05]
    over = {one.over for one in found.values() if one.over}
    numbers: dict[str, JsonValue] = {_name(key): _numbers(one) for key, one in found.items()}
    yield voice.say(
        "pass",
        "differences",
        view.artifact.key,
        f"{len(found) - len(unclear)} of {counted(len(found), 'difference')} from the baseline "
        f"significant at 5 % after Holm, over {' or '.join(sorted(over)) or 'nothing'}"
        + (f"; not: {some(unclear)}" if unclear else ""),
        artifacts=[view.artifact],
        numbers=numbers,
    )
    yield from _order(voice, view, matrices)


def _numbers(found: Comparison) -> dict[str, JsonValue]:
    return {
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "p": found.p,
        "p_holm": found.p_holm,
    }


def _order(
    voice: Voice, view: TableView, matrices: dict[tuple[Place, str], Matrix]
) -> Iterator[Finding]:
    """Whether a method is on the same side of the baseline under every seed."""
    several = {key: matrix.mean(axis=1) for key, matrix in matrices.items() if len(matrix) > 1}
    if not several:
        return
    turning = [_name(key) for key, means in several.items() if means.min() < 0 < means.max()]
    if turning:
        yield voice.about(
            "warn",
            "order",
            view.artifact,
            f"{counted(len(turning), 'comparison')} of {len(several)} change sides from seed to "
            f"seed: {some(turning)}",
            "",
        )
    else:
        yield voice.passed(
            "order", f"{counted(len(several), 'comparison')} on one side, every seed"
        )


def _name(key: tuple[Place, str]) -> str:
    place, column = key
    share = "" if place.fraction == 100 else f"/{place.fraction} %"
    further = "".join(f"/{value}" for value in (place.test, place.metric) if value)
    return f"{column} of {place.dataset}/{place.teacher}/{place.student}{share}{further}"
