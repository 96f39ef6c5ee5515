"""A journal that was torn or damaged: what stands before the damage is kept, the rest is said."""

from pathlib import Path

import pytest

from kd.resume.journal import Journal

VALUES = [["one", "a\rb"], ["two"], ["three", "\u2028 ünï"], ["four"]]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    made = Journal(tmp_path, "f" * 64)
    for value in VALUES:
        made.append(value)
    return made.path


def reopened(tmp_path: Path) -> Journal:
    return Journal(tmp_path, "f" * 64)


def test_a_sound_journal_comes_back_without_a_word(tmp_path, journal, capsys):
    assert reopened(tmp_path).entries == VALUES
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_last_line_costs_itself_alone(tmp_path, journal, cut, capsys):
    journal.write_bytes(journal.read_bytes()[:-cut])
    assert reopened(tmp_path).entries == VALUES[:3]
    said = capsys.readouterr().err
    assert "line 4 is damaged; the 3 before it are kept, and it and the 0 after it" in said
    reopened(tmp_path).append(VALUES[3])
    assert reopened(tmp_path).entries == VALUES


@pytest.mark.parametrize("position", [3, 18, 25])
def test_damage_in_the_middle_is_said_and_keeps_what_stands_before(
    tmp_path, journal, position, capsys
):
    lines = journal.read_bytes().splitlines(keepends=True)
    damaged = bytearray(lines[1])
    damaged[min(position, len(damaged) - 3)] ^= 1
    journal.write_bytes(b"".join([lines[0], bytes(damaged), *lines[2:]]))
    assert reopened(tmp_path).entries == VALUES[:1]
    said = capsys.readouterr().err
    assert f"{journal}: line 2 is damaged; the 1 before it are kept, and it and the 2 after" in said
    assert journal.read_bytes() == lines[0], "what follows is gone, and new lines come after line 1"


def test_another_specification_reads_nothing(tmp_path, journal):
    assert Journal(tmp_path, "e" * 64).entries == []
    assert len(reopened(tmp_path).entries) == 4
