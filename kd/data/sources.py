"""Rows from where an experiment says they come from: the micro world, files, or the hub.

Files and hub datasets are read by `datasets`; a field map (`kd.data.fields`) says which of their
fields fills which field of a row.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kd.data import micro
from kd.data.fields import grouped, mapped
from kd.data.hub import HubReader
from kd.data.published_layouts import LAYOUTS
from kd.data.rows import Row, parse_rows, write_rows
from kd.errors import DataError
from kd.experiment.datasets import SPLITS, FilesDataset, HubDataset, MicroDataset
from kd.experiment.stages import DataSpec
from kd.provenance.manifest import StageRecord

_FORMATS = {
    ".jsonl": "json",
    ".jsonlines": "json",
    ".json": "json",
    ".parquet": "parquet",
    ".csv": "csv",
}


def source_files(dataset: FilesDataset, root: Path) -> dict[str, Path]:
    """The dataset's file of each split."""
    return {split: root / path for split, path in dataset.paths.items()}


def build_dataset(spec: DataSpec, root: Path, out: Path) -> None:
    """Stage `data`: write one parquet file per split, and the manifest, into `out`.

    Raises:
        DataError: a missing file, or a malformed or duplicate row, named by its number.
    """
    files = source_files(spec.dataset, root) if isinstance(spec.dataset, FilesDataset) else {}
    for split, path in files.items():
        if not path.exists():
            raise DataError(
                f"{path}: no such file (split '{split}' of dataset '{spec.name}'). "
                "Give the folder that holds it: --config data_root=FOLDER."
            )
    record = StageRecord(
        "data", spec, files, ("kd.data.sources",), external=tuple(files), tensors=False
    )
    hub = HubReader(spec.dataset) if isinstance(spec.dataset, HubDataset) else None
    splits = _rows(spec, files, hub)
    _refuse_shared_ids(spec.name, splits)
    for stale in out.glob("*.parquet"):
        stale.unlink()
    for split, rows in splits.items():
        write_rows(rows, out / f"{split}.parquet")
    record.write(
        *(out / f"{split}.parquet" for split in splits),
        notes={"rows": {split: len(rows) for split, rows in splits.items()}}
        | ({"commit": hub.commit, "licence": hub.licence} if hub else {}),
    )


def _rows(spec: DataSpec, files: Mapping[str, Path], hub: HubReader | None) -> dict[str, list[Row]]:
    dataset = spec.dataset
    if isinstance(dataset, MicroDataset):
        return _generate(dataset, spec)
    sizes = dataset.splits.model_dump() if dataset.splits else {}
    found = {}
    for split in SPLITS:
        if isinstance(dataset, FilesDataset):
            where, records = str(files[split]), _read_path(dataset, files[split], split)
        else:
            assert hub is not None
            where, records = f"{dataset.repo} ({split})", hub.read(split)
        rows = mapped(records, dataset.fields, dataset.task, where)
        if isinstance(dataset, HubDataset) and dataset.group_ids is not None:
            rows = grouped(rows, dataset.group_ids, where)
        found[split] = parse_rows(rows[: sizes.get(split)], where)
    return found


def _read_path(dataset: FilesDataset, path: Path, split: str) -> list[dict[str, Any]]:
    if dataset.layout == "rows":
        return _read_file(path)
    return LAYOUTS[dataset.layout](path, split)


def _generate(dataset: MicroDataset, spec: DataSpec) -> dict[str, list[Row]]:
    world = dataset.world or spec.name
    sizes = {split: size for split, size in dataset.splits.model_dump().items() if size}
    return {
        split: parse_rows(
            [
                row.model_dump() | {"task": dataset.task}
                for row in micro.generate(world, split, size, spec.seed)
            ],
            f"micro world '{world}', {split}",
        )
        for split, size in sizes.items()
    }


def _read_file(path: Path) -> list[dict[str, Any]]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError

    kind = _FORMATS.get(path.suffix)
    if kind is None:
        raise DataError(f"{path}: unknown format. Use one of {', '.join(sorted(_FORMATS))}.")
    if kind == "json":
        _check_json_lines(path)
    with TemporaryDirectory() as cache:
        try:
            loaded = load_dataset(kind, data_files=str(path), split="train", cache_dir=cache)
            return [dict(record) for record in loaded]
        except (DatasetGenerationError, ValueError, OSError) as error:
            cause = " ".join(str(error.__cause__ or error).split())
            raise DataError(f"{path}: cannot be read as {kind} rows ({cause}).") from None


def _check_json_lines(path: Path) -> None:
    """Name the first line that is no JSON object, or whose fields change type."""
    lines = _lines(path)
    if lines[0].lstrip().startswith("["):
        raise DataError(f"{path}: holds one JSON list. Write one JSON object per line instead.")
    types: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            _check_record(line, types, f"{path}, row {number}")


def _lines(path: Path) -> list[str]:
    try:
        # Not splitlines(): JSON strings may hold other line separators than the newline.
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason}). Convert it.") from None
    if not any(line.strip() for line in lines):
        raise DataError(f"{path}: no rows. Point the dataset at a file that has some.")
    return lines


def _check_record(line: str, types: dict[str, str], where: str) -> None:
    """Refuse what is no JSON object, or a field whose type is not the one in `types`."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not valid JSON ({error}). Mend it.") from None
    if not isinstance(record, dict):
        raise DataError(f"{where}: must be a JSON object.")
    for field, value in record.items():
        kind = type(value).__name__
        if value is not None and types.setdefault(field, kind) != kind:
            raise DataError(
                f"{where}: '{field}' is of type {kind}, in earlier rows {types[field]}. "
                "Use one type."
            )


def _refuse_shared_ids(name: str, splits: Mapping[str, Sequence[Row]]) -> None:
    home: dict[str, str] = {}
    for split, rows in splits.items():
        for row in rows:
            if home.setdefault(row.id, split) != split:
                raise DataError(
                    f"dataset '{name}': id '{row.id}' stands in both {home[row.id]} and {split}. "
                    "A row may be in one split only."
                )
