"""Repeats without training: what a stage would make again is taken from an honest tree."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

from kd.audit import repeat as module
from kd.audit.chain import Artifact, Chain
from kd.audit.execution import Scratch
from kd.audit.scope import Repeat
from tests.audit.fabrication import World


@contextmanager
def repeated_honestly(honest: World) -> Iterator[Repeat]:
    """Within, repeating an artifact gives that of `honest`; yields the repeat of one cell."""

    def run_again(scratch: Scratch, artifacts: Sequence[Artifact]) -> list[Artifact]:
        for artifact in artifacts:
            source = honest.results / artifact.folder
            shutil.copytree(source, scratch.root / artifact.folder, dirs_exist_ok=True)
        made = Chain(scratch.root)
        return [made.artifact(artifact.folder, artifact.name) for artifact in artifacts]

    with patch.object(module, "run_again", run_again):
        yield Repeat(count=6, start="predictions")
