"""Rows of a dataset on the hub, through `datasets`, at one commit.

The repository's files come into the hub's cache first (`kd.hub.snapshots`), and are read from
there: then the commit is known, and a machine without network reads the same rows. No code of a
repository is run; one that has nothing but a loading script mostly has a copy in parquet, which
the hub made, at the revision `refs/convert/parquet`.
"""

from functools import cached_property
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from kd.errors import DataError
from kd.experiment.datasets import HubDataset, HubRows
from kd.hub.access import Repository
from kd.hub.snapshots import ROWS, Snapshot, fetch

if TYPE_CHECKING:
    from datasets import Dataset


class HubReader:
    """Reads the splits of one dataset, all at the same commit."""

    def __init__(self, dataset: HubDataset) -> None:
        self._dataset = dataset

    @cached_property
    def _snapshot(self) -> Snapshot:
        repository = Repository("dataset", self._dataset.repo, self._dataset.revision)
        return fetch(repository, (*ROWS, "README.md"), folders=True)

    @property
    def commit(self) -> str:
        """The commit that was read, 40 hexadecimal digits."""
        return self._snapshot.commit

    @property
    def licence(self) -> str | None:
        """The licence that the repository's card states."""
        return self._snapshot.licence()

    def read(self, split: str) -> list[dict[str, Any]]:
        """The records of a split of the experiment, in the repository's order or as drawn.

        Raises:
            HubError: the repository cannot be had.
            DataError: it has no such split or configuration, or nothing that can be read.
        """
        rows = self._dataset.rows_of(split)
        with TemporaryDirectory() as cache:
            loaded = self._load(rows, cache)
            if rows.hold_out is not None:
                parts = loaded.train_test_split(test_size=rows.hold_out, seed=rows.seed)
                loaded = parts["train" if rows.part == "kept" else "test"]
            return list(loaded.to_list())

    def _load(self, rows: HubRows, cache: str) -> "Dataset":
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError

        folder = self._snapshot.folder
        where: dict[str, Any] = {"name": rows.config}
        # Copies made by the hub have a folder for each configuration, and no card that says so.
        if rows.config and (folder / rows.config).is_dir() and not self._names(rows.config):
            where = {"data_dir": rows.config}
        try:
            return load_dataset(str(folder), split=rows.split, cache_dir=cache, **where)
        except (DatasetsError, ValueError, OSError) as error:
            cause = " ".join(str(error.__cause__ or error).replace(str(folder), "").split())[:300]
            raise DataError(
                f"{self._snapshot.repository}: '{rows.split}' of "
                f"{rows.config or 'its only configuration'} cannot be read ({cause}). Correct "
                "'config' and 'hub_splits'; a repository without files of rows mostly has them "
                "at the revision 'refs/convert/parquet'."
            ) from None

    def _names(self, config: str) -> bool:
        card = self._snapshot.folder / "README.md"
        text = card.read_text(encoding="utf-8") if card.is_file() else ""
        return f"config_name: {config}" in text.replace('"', "")
