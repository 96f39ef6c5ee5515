"""An error that nobody foresaw keeps its traceback, and says last what and where."""

import sys

import pytest

from kd import cli


def test_the_last_line_names_the_error_and_its_place(monkeypatch, capsys):
    def broken(**_):
        return undefined  # noqa: F821

    monkeypatch.setattr(sys, "argv", ["kd", "show", "x"])
    monkeypatch.setattr("kd.commands.application.app", broken)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    *above, last = capsys.readouterr().err.strip().splitlines()
    assert above[0] == "Traceback (most recent call last):"
    assert last.startswith("kd: error: unexpected NameError: name 'undefined' is not defined (")
    assert "test_unexpected_errors.py, line 1" in last
