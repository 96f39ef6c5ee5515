"""Asking Snakemake what it would do. The only module of the package that calls it.

It runs as a subprocess, as a dry run: nothing is made.
"""

import base64
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd.errors import KdError
from kd.provenance.canonical import canonical_json

_TIMEOUT = 600  # seconds; planning the largest experiment takes a few
_SHELL = "Shell command:"
_JOB = re.compile(r"^(?:Job \d+: (?P<message>.*)|(?:local)?rule (?P<rule>\S+):)$")
_REFUSED = "kd: error: "
_EXCEPTION = re.compile(r"\w+(Exception|Error)( .*)?:")
_REASON = re.compile(r"^\s*[Rr]eason: (?P<reason>.*)$")


# The rules that run a stage's command on a node; other stages run where Snakemake does.
_RULES = {
    "pretrain": ["pretrain"],
    "answer": ["answer"],
    "extract": ["extract", "extract_variant"],
    "distill": ["distill"],
    "predict": ["predict_student", "predict_native", "predict_teacher"],
    "score": ["score"],
}
_TAKE_TURNS = {"score"}  # grouped in profiles/slurm: members of a group run one by one


class WorkflowError(KdError):
    """Snakemake cannot be asked, or refuses."""


@dataclass(frozen=True)
class Planned:
    """A job that a dry run would run: what it says it does, and why it is needed."""

    job: str
    reason: str


def planned_commands(
    targets: Sequence[str],
    *,
    experiment: str,
    overrides: Mapping[str, Any],
    checkout: Path,
    everything: bool = False,
) -> list[str]:
    """The command lines of the jobs that Snakemake would run for `targets`.

    With `everything` those of all jobs behind them, done or not. Otherwise as `dry_run`.
    """
    options = ["--dry-run", "--printshellcmds", *(["--forceall"] if everything else [])]
    output = _snakemake(targets, experiment, overrides, checkout, options)
    lines = output.splitlines()
    return [line.removeprefix(_SHELL).strip() for line in lines if line.startswith(_SHELL)]


def limits_as_profile(limits: Mapping[str, tuple[int, int]]) -> str:
    """The `set-resources` of a profile (YAML).

    Args:
        limits: minutes and megabytes of each stage.
    """
    lines = ["set-resources:"]
    for stage, (runtime, memory) in limits.items():
        for rule in _RULES.get(stage, ()):
            turn = ", turn: 1" if rule in _TAKE_TURNS else ""
            lines.append(f"  {rule}: {{runtime: {runtime}, mem_mb: {memory} * attempt{turn}}}")
    return "\n".join(lines)


def dry_run(
    targets: Sequence[str], *, experiment: str, overrides: Mapping[str, Any], checkout: Path
) -> list[Planned]:
    """The jobs that Snakemake would run for `targets`, in the order in which it lists them.

    Args:
        targets: files, as the rules name them.
        experiment: value of `--config experiment=…`.
        overrides: further `--config` values.
        checkout: folder of the Snakefile, and of `results/`.

    Raises:
        WorkflowError: there is no Snakefile, or Snakemake refuses.
    """
    return parse_plan(_snakemake(targets, experiment, overrides, checkout, ["--dry-run"]))


def _snakemake(
    targets: Sequence[str],
    experiment: str,
    overrides: Mapping[str, Any],
    checkout: Path,
    options: Sequence[str],
) -> str:
    """What Snakemake prints when it is asked for `targets`."""
    if not (checkout / "Snakefile").is_file():
        raise WorkflowError(f"{checkout}: no Snakefile, so nothing can be planned here.")
    config = {"experiment": experiment} | dict(overrides)
    values = [f"{key}={_config_value(value)}" for key, value in config.items()]
    command = [sys.executable, "-m", "snakemake", *targets, *options, "--cores", "1"]
    command += ["--nocolor", "--config", *values]
    try:
        done = subprocess.run(
            command, cwd=checkout, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WorkflowError(f"Snakemake cannot be run ({error}).") from None
    if done.returncode != 0:
        raise WorkflowError(f"Snakemake refuses: {refusal(done.stdout, done.stderr)}")
    return done.stdout + done.stderr


def refusal(output: str, errors: str) -> str:
    """Why Snakemake refused, in a line: the exception that it names, or what `kd` said.

    Args:
        output: its standard output, where it writes exceptions.
        errors: its standard error, where a Snakefile that calls `kd` says why it stopped.
    """
    said = [line.removeprefix(_REFUSED) for line in errors.splitlines() if _REFUSED in line]
    if said:
        return said[-1]
    for text in (output, errors):
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        named = [number for number, line in enumerate(lines) if _EXCEPTION.fullmatch(line)]
        if named and lines[named[-1] + 1 :]:
            return lines[named[-1] + 1]
    told = [line for line in (output + errors).splitlines() if line.strip()]
    told = [line for line in told if not line.startswith("Using workflow specific profile")]
    return told[-1] if told else "no reason given"


def _config_value(value: Any) -> str:
    return value if isinstance(value, str) else canonical_json(value)


def parse_plan(output: str) -> list[Planned]:
    """The jobs in a dry run's output, each with its reason."""
    planned: list[Planned] = []
    job = ""
    for line in output.splitlines():
        head, reason = _JOB.match(line), _REASON.match(line)
        if head:
            job = head["message"] or head["rule"]
        elif reason and job:
            planned.append(Planned(job, reason["reason"].strip()))
            job = ""
    return planned


def is_recorded(target: str, checkout: Path) -> bool:
    """Whether Snakemake remembers how it made `target`; without that, it misses changes."""
    name = base64.b64encode(target.encode()).decode()
    return (checkout / ".snakemake" / "metadata" / name).is_file()


def unnoted_outputs(checkout: Path) -> set[Path]:
    """Outputs of jobs that a Snakemake has started and not seen end, below `checkout`."""
    folder = checkout / ".snakemake" / "incomplete"
    found = set()
    for parent, _, names in os.walk(folder):
        # A name too long for one file is split: all parts but the last are folders, with an `@`.
        split = [part.removeprefix("@") for part in Path(parent).relative_to(folder).parts]
        for name in names:
            with suppress(ValueError):  # another file of Snakemake's
                found.add(Path(base64.urlsafe_b64decode("".join([*split, name])).decode()))
    return found
