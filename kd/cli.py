"""The `kd` command: one subcommand per stage of the chain, and a few that look things up.

Most of its processes only ask a worker to do their work, so nothing is imported for more than that
before one of them has to do it itself.
"""

import os
import sys
from typing import Any, NoReturn

from kd import interruption
from kd.worker.client import delegate

USAGE_ERROR = 2
PACKAGE = __file__.removesuffix("kd/cli.py")
# Their libraries take seconds to import: a worker that has them runs these (`kd.worker`).
SLOW_TO_IMPORT = ("pretrain", "answer", "extract", "distill", "predict", "score")


def __getattr__(name: str) -> Any:
    """`app`, for whoever runs commands in a process of its own."""
    if name != "app":
        raise AttributeError(name)
    from kd.commands.application import app

    return app


def _prepare_environment() -> None:
    """Settings that must stand before torch or mlflow is imported; the caller's own win."""
    defaults: dict[str, Any] = {
        # One thread a job: two spin at barriers and lose by far under any other load.
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def main() -> None:
    """Entry point: what a user can cause becomes one sentence and exit status 2.

    A signal ends in status 75: the same command goes on.
    """
    _prepare_environment()
    interruption.install()
    from kd.errors import KdError

    try:
        status = delegate() if len(sys.argv) > 1 and sys.argv[1] in SLOW_TO_IMPORT else None
        if status is not None:
            sys.exit(status)
        from kd.commands.application import app

        app(prog_name="kd")
    except interruption.Interrupted as stopped:
        print(f"kd: interrupted: {stopped}", file=sys.stderr)
        sys.exit(interruption.EXIT_STATUS)
    except Exception as error:
        from kd.errors import KdError
        from kd.provenance.storage import storage_trouble

        reason = str(error) if isinstance(error, KdError) else storage_trouble(error)
        if reason is None:
            _report_bug(error)
        _refuse(reason)


def _report_bug(error: Exception) -> NoReturn:
    """The traceback, and where it happened as the last line: Snakemake repeats that one."""
    import traceback

    traceback.print_exc()
    steps = traceback.extract_tb(error.__traceback__)
    ours = [step for step in steps if step.filename.startswith(PACKAGE)]
    place = (ours or list(steps))[-1]
    told = str(error).splitlines() or ["no reason given"]
    where = f"{place.filename.removeprefix(PACKAGE)}, line {place.lineno}"
    print(
        f"kd: error: unexpected {type(error).__name__}: {told[0]} "
        f"({where}; its traceback stands above)",
        file=sys.stderr,
    )
    sys.exit(1)


def _refuse(reason: str) -> NoReturn:
    for line in reason.splitlines():
        print(f"kd: error: {line}", file=sys.stderr)
    sys.exit(USAGE_ERROR)


if __name__ == "__main__":
    main()
