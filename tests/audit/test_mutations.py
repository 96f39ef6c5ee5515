"""Every planted fault is found by the check that is meant to find it, and stands first."""

from pathlib import Path

import pytest

from kd.audit.notes import AGREEMENT, CHECKS, INTEGRITY, PROJECTION
from tests.audit.fabrication import World
from tests.audit.mutations import FAULTS, Fault, audit, catch
from tests.audit.tampering import flip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found_by_the_intended_check_first_and_its_consequences_later(
    fault: Fault, clean: World, tmp_path: Path
) -> None:
    found = catch(fault, clean, tmp_path / "world")
    assert found.news, "nothing was found"
    first = found.first
    assert (first.check, first.rule, first.status) == (fault.check, fault.rule, fault.status)
    assert not first.derived_from
    assert found.report.exit_code() == (1 if fault.status == "fail" else 0)
    assert found.report.exit_code(strict=True) == 1
    # What it entails for other checks is marked as a consequence.
    roots = [one for one in found.news if one.status == "fail" and not one.derived_from]
    assert {one.check for one in roots} <= {fault.check}, [one.evidence for one in roots]


BESIDE = [fault for fault in FAULTS if fault.check in (AGREEMENT, PROJECTION)]


@pytest.mark.parametrize("fault", BESIDE, ids=lambda fault: fault.name)
def test_cells_hold_whatever_is_set_beside_them(fault: Fault, clean: World, tmp_path: Path) -> None:
    assert all(cell["holds"] for cell in catch(fault, clean, tmp_path / "world").report.cells)


def test_at_least_one_fault_is_planted_for_every_check() -> None:
    assert {fault.check for fault in FAULTS} == set(CHECKS)


def test_the_names_of_faults_are_unique() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 25


def outputs(world: World) -> list[str]:
    """Every file that some manifest below the results lists, alone or within a folder."""
    found = []
    for manifest in sorted(world.results.rglob("*.manifest.json")):
        folder = manifest.parent
        own = [path for path in folder.iterdir() if path.is_file() and path != manifest]
        inside = [path for path in folder.glob("*/*") if path.is_file()]
        found += [path for path in (*own, *inside) if not path.name.endswith(".manifest.json")]
    left_out = (".cost.csv", ".tracked.json", "mlflow.db")
    kept = {path for path in found if not path.name.endswith(left_out)}
    return sorted(path.relative_to(world.results).as_posix() for path in kept)


def test_a_flipped_bit_in_any_output_of_any_stage_is_found(clean: World, tmp_path: Path) -> None:
    names = outputs(clean)
    assert len(names) > 40
    world = clean.copy(tmp_path / "world")
    for name in names:
        original = (world.results / name).read_bytes()
        flip(name)(world)
        first = audit(world).findings[0]
        (world.results / name).write_bytes(original)
        assert (first.check, first.rule, first.status) == (INTEGRITY, "outputs", "fail"), name
        folder = first.subject.rpartition("/")[0]
        assert name.startswith(folder), f"{name} was blamed on {first.subject}"
