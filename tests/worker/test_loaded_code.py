"""What a worker holds of the package counts only where a new process would import the same."""

import os
from pathlib import Path

import pytest

from kd.worker import code


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "kd"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "module.py").write_text("VALUE = 1\n")
    monkeypatch.setattr(code, "_ROOT", folder)
    return folder


def test_unchanged_files_are_current(package: Path, tmp_path: Path) -> None:
    loaded = code.LoadedCode()
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "module.py").write_text("")
    assert loaded.is_current(str(tmp_path / "elsewhere"))


def test_edited_added_and_removed_files_are_not(package: Path, tmp_path: Path) -> None:
    module = package / "inner" / "module.py"
    before = module.stat()
    loaded = code.LoadedCode()
    module.write_text("VALUE = 2\n")  # of the same size
    os.utime(module, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert not loaded.is_current(str(tmp_path))

    loaded = code.LoadedCode()
    (package / "added.py").write_text("")
    assert not loaded.is_current(str(tmp_path))

    loaded = code.LoadedCode()
    module.unlink()
    assert not loaded.is_current(str(tmp_path))


def test_another_package_that_comes_first_is_not(package: Path, tmp_path: Path) -> None:
    (package / "__init__.py").write_text("")
    loaded = code.LoadedCode()
    assert not loaded.is_current(str(tmp_path))  # holds a `kd` that is not the one imported
    assert loaded.is_current("/")
