"""From records of any shape to rows: which field fills which, and which records are one row."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kd.errors import DataError
from kd.experiment.datasets import FieldMap


def mapped(
    records: Sequence[Mapping[str, Any]], fields: FieldMap, task: str, where: str
) -> list[dict[str, Any]]:
    """`records` with the fields of a row.

    Raises:
        DataError: a record lacks a field; `where` and its number are named.
    """
    found = []
    for number, record in enumerate(records, start=1):
        try:
            found.append(_as_row(record, fields, task))
        except ValueError as error:
            raise DataError(f"{where}, row {number}: {error}") from None
        except (KeyError, TypeError, IndexError):
            wanted = ", ".join(_paths(fields))
            raise DataError(
                f"{where}, row {number}: has the fields {', '.join(sorted(record))}, but "
                f"{wanted} are wanted. Map them with 'fields' in the experiment."
            ) from None
    return found


def grouped(rows: Sequence[dict[str, Any]], pattern: str, where: str) -> list[dict[str, Any]]:
    """Rows whose ids match `pattern` and share its group, as one row with all their answers.

    Such a row stands where its first one stood, with the group as its id.

    Raises:
        DataError: rows of one group differ in more than their answers.
    """
    matcher = re.compile(pattern)
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        match = matcher.fullmatch(row["id"])
        name = match.group(1) if match else row["id"]
        first = found.get(name)
        if first is None or match is None:
            # A second row of the same id that is in no group is refused later, as a duplicate.
            key = name if first is None else f"{name}/{len(found)}"
            found[key] = row | {"id": name}
            continue
        if any(first[field] != row[field] for field in ("context", "question", "title")):
            raise DataError(
                f"{where}: the row '{row['id']}' asks something else than others of '{name}'. "
                "Correct 'group_ids'."
            )
        found[name] = first | {"answers": [*first["answers"], *row["answers"]]}
    return list(found.values())


def _paths(fields: FieldMap) -> Iterator[str]:
    for path in fields.model_dump().values():
        yield from [path] if isinstance(path, str) else path or []


def _as_row(record: Mapping[str, Any], fields: FieldMap, task: str) -> dict[str, Any]:
    paths = [fields.answers] if isinstance(fields.answers, str) else fields.answers
    answers = [text for path in paths for text in _answers(record, path)]
    if not answers or _pick(record, fields.id) is None:
        raise ValueError(f"'{fields.id}' and '{', '.join(paths)}' must not be null.")
    context = _pick(record, fields.context)
    return {
        "id": str(_pick(record, fields.id)),
        "task": task,
        "title": _pick(record, fields.title) or "" if fields.title else "",
        "context": " ".join(context) if isinstance(context, list) else context,
        "question": _pick(record, fields.question) or "" if fields.question else "",
        "answers": answers,
    }


def _answers(record: Mapping[str, Any], path: str) -> list[Any]:
    found = _pick(record, path)
    if isinstance(found, dict):
        keys = ", ".join(sorted(found))
        raise ValueError(
            f"'{path}' holds the fields {keys}. Map one of them: answers: {path}."
            f"{sorted(found)[-1]}."
        )
    flat = _flat(found)
    if flat and isinstance(flat[0], dict):
        raise ValueError(
            f"'{path}' holds entries of several fields. Map one of them: answers: {path}."
            f"{sorted(flat[0])[-1]}."
        )
    # An empty list is no answer at all, and refused as such where rows are checked.
    return (
        [""]
        if isinstance(found, list) and not flat
        else [text for text in flat if text is not None]
    )


def _pick(value: Any, path: str) -> Any:
    """What a dotted path leads to; through a list, what it leads to in each entry."""
    head, _, rest = path.partition(".")
    if isinstance(value, list) and not head.isdigit():
        return [_pick(entry, path) for entry in value]
    inner = value[int(head)] if isinstance(value, list) else value[head]
    return _pick(inner, rest) if rest else inner


def _flat(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [inner for entry in value for inner in _flat(entry)]
    return [value]
