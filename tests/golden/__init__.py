"""How other systems' functions and hyper-parameters translate into calls of ours.

Every module beside this one registers its translations when it is imported.
"""

import importlib
from pathlib import Path

from tests.golden.calls import (
    DEFECTS,
    RESTATEMENTS,
    SOURCES,
    Call,
    Inputs,
    Unsupported,
    tensor,
)

for _path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
    importlib.import_module(f"tests.golden.{_path.stem}")

__all__ = ["DEFECTS", "RESTATEMENTS", "SOURCES", "Call", "Inputs", "Unsupported", "tensor"]
