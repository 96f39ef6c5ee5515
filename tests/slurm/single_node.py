"""A real SLURM on this machine alone: munge, slurmctld and slurmd, with GPUs that are not there.

    python -m tests.slurm.single_node start     install what is missing, start (does nothing twice)
    python -m tests.slurm.single_node status    what the controller says of its node
    python -m tests.slurm.single_node stop      end the daemons, remove everything but the packages

For root on Debian or Ubuntu. There is no accounting (slurmdbd), as on many small clusters.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

CLUSTER = "kd-tests"
FOLDER = Path("/var/tmp/kd-slurm")
CONFIGURATION = Path("/etc/slurm")
PACKAGES = ("slurm-client", "slurmctld", "slurmd", "munge")
CONTROLLER_PORT = 26817
NODE_PORT = 26818
GPUS = 2
CPUS = 16  # claimed, not had: several jobs share the cores
MEMORY_MB = 512_000
SOCKET = FOLDER / "munge.socket"

# Without systemd and cgroups, and with everything on the loopback interface. Finished jobs
# stay visible for MinJobAge seconds. A requeued job waits until its old credential expired.
SLURM_CONF = f"""\
ClusterName={CLUSTER}
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={CONTROLLER_PORT}
SlurmdPort={NODE_PORT}
{{binding}}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={SOCKET},cred_expire=10
StateSaveLocation={FOLDER}/state
SlurmdSpoolDir={FOLDER}/spool
SlurmctldPidFile={FOLDER}/slurmctld.pid
SlurmdPidFile={FOLDER}/slurmd.pid
SlurmctldLogFile={FOLDER}/slurmctld.log
SlurmdLogFile={FOLDER}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
LaunchParameters=disable_send_gids
PropagateResourceLimits=NONE
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_min_interval=0,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
KillWait=10
InactiveLimit=0
MinJobAge=3600
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
GresTypes=gpu
NodeName=localhost NodeAddr=127.0.0.1 Port={NODE_PORT} CPUs={CPUS} RealMemory={MEMORY_MB} \
Gres=gpu:{GPUS} State=UNKNOWN
PartitionName=cpu Nodes=localhost Default=YES MaxTime=2-00:00:00 State=UP
PartitionName=gpu Nodes=localhost MaxTime=2-00:00:00 State=UP
"""


class Unavailable(RuntimeError):
    """SLURM cannot be had on this machine; the message says why."""


def start() -> None:
    """Install what is missing and start what does not run.

    Raises:
        Unavailable: not root, no package, a SLURM that is not ours, or a daemon that fails.
    """
    if os.geteuid() != 0:
        raise Unavailable("only root can start SLURM's daemons")
    if not sys.platform.startswith("linux"):
        raise Unavailable("SLURM needs Linux")
    _install()
    _configure()
    if not _answers("munge", "-S", str(SOCKET), "-n"):
        SOCKET.unlink(missing_ok=True)
        files = {
            "key-file": "munge.key",
            "socket": SOCKET.name,
            "pid-file": "munged.pid",
            "log-file": "munged.log",
            "seed-file": "munged.seed",
        }
        options = [f"--{name}={FOLDER / file}" for name, file in files.items()]
        _daemon("munged", "--force", "--num-threads=2", *options)
        _wait(lambda: _answers("munge", "-S", str(SOCKET), "-n"), "munged.log")
    if not _running("slurmctld"):
        _daemon("slurmctld")
    _wait(lambda: _answers("scontrol", "ping"), "slurmctld.log")
    if not _running("slurmd"):
        _daemon("slurmd", "-N", "localhost")
    _wait(_node_is_ready, "slurmd.log")


def stop() -> None:
    """End every job and daemon, and remove the folder and the links to it."""
    if _running("slurmctld"):
        subprocess.run(["scancel", "--me"], check=False, timeout=30)
        try:
            _wait(lambda: not _output("squeue", "--noheader"), "slurmctld.log", seconds=20)
        except Unavailable as error:
            print(f"warning: {error}", file=sys.stderr)
    for daemon in ("slurmd", "slurmctld", "munged"):
        _end(daemon)
    _end_orphans()
    for name in ("slurm.conf", "gres.conf"):
        link = CONFIGURATION / name
        if link.is_symlink() and link.readlink() == FOLDER / name:
            link.unlink()
    shutil.rmtree(FOLDER, ignore_errors=True)


def status() -> str:
    """The node's line of `sinfo`, or an empty text where no controller answers."""
    return _output("sinfo", "--noheader", "--Node", "--format=%N %T %C %G").strip()


def _install() -> None:
    if all(shutil.which(name) for name in ("sbatch", "slurmctld", "slurmd", "munged")):
        return
    if shutil.which("apt-get") is None:
        raise Unavailable("SLURM is not installed and there is no apt-get to install it with")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    # The packages' own services are not used: nothing must start them.
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["no reason given"]
            raise Unavailable(f"`{' '.join(command)}` fails: {lines[-1]}")


def _configure() -> None:
    for name in ("state", "spool", "dev"):
        (FOLDER / name).mkdir(parents=True, exist_ok=True)
    FOLDER.chmod(0o755)
    key = FOLDER / "munge.key"
    if not key.exists():
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
    for index in range(GPUS):
        device = FOLDER / "dev" / f"gpu{index}"
        if not device.exists():  # slurmd insists on a character device: that of /dev/null
            os.mknod(device, 0o666 | 0o020000, os.makedev(1, 3))
    # These flags bind to the address of the machine's own name: right only if that is loopback.
    own = subprocess.run(
        ["getent", "ahostsv4", os.uname().nodename], capture_output=True, text=True
    )
    flags = "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny"
    binding = flags if own.stdout.startswith("127.") else ""
    (FOLDER / "slurm.conf").write_text(SLURM_CONF.format(binding=binding))
    devices = f"{FOLDER}/dev/gpu[0-{GPUS - 1}]"
    (FOLDER / "gres.conf").write_text(
        f"AutoDetect=off\nNodeName=localhost Name=gpu File={devices} Flags=nvidia_gpu_env\n"
    )
    # Snakemake's jobs drop SLURM_CONF before their inner srun, so only the built-in path serves.
    CONFIGURATION.mkdir(exist_ok=True)
    for name in ("slurm.conf", "gres.conf"):
        link = CONFIGURATION / name
        if link.is_symlink() and link.readlink() == FOLDER / name:
            continue
        if link.exists() or link.is_symlink():
            raise Unavailable(f"{link} belongs to another SLURM")
        link.symlink_to(FOLDER / name)


def _daemon(*command: str) -> None:
    """Start a program that goes to the background by itself."""
    quiet = subprocess.DEVNULL
    done = subprocess.run(
        command,
        stdin=quiet,
        stdout=quiet,
        stderr=quiet,
        start_new_session=True,
        timeout=30,
        check=False,
    )
    if done.returncode != 0:
        raise Unavailable(f"{command[0]} does not start; see {FOLDER}")


def _pid(daemon: str) -> int | None:
    """The process in the daemon's pid file, if it still is that daemon."""
    try:
        pid = int((FOLDER / f"{daemon}.pid").read_text())
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except (OSError, ValueError):
        return None
    return pid if name == daemon else None


def _running(daemon: str) -> bool:
    return _pid(daemon) is not None


def _end(daemon: str) -> None:
    pid = _pid(daemon)
    if pid is None:
        return
    os.kill(pid, signal.SIGTERM)
    try:
        _wait(lambda: not _running(daemon), f"{daemon}.log", seconds=10)
    except Unavailable:
        os.kill(pid, signal.SIGKILL)


def _end_orphans() -> None:
    """Kill what jobs left: without cgroups slurmd loses some of a job whose node goes down."""
    mark = f"SLURM_CLUSTER_NAME={CLUSTER}".encode()
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if mark in environment.read_bytes().split(b"\0"):
                os.kill(int(environment.parent.name), signal.SIGKILL)


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _answers(*command: str) -> bool:
    return bool(_output(*command))


def _node_is_ready() -> bool:
    state = _output("sinfo", "--noheader", "--format=%T").split()
    if state and set(state) <= {"down", "drained", "draining", "unknown"}:
        _output("scontrol", "update", "NodeName=localhost", "State=RESUME")
    return bool(set(state) & {"idle", "mixed", "allocated", "completing"})


def _wait(condition: Callable[[], bool], log: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Unavailable(f"waited {seconds:.0f} s in vain; see {FOLDER / log}")
        time.sleep(0.1)


def main() -> int:
    command = sys.argv[1] if len(sys.argv) == 2 else ""
    if command == "start":
        try:
            start()
        except Unavailable as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    elif command == "stop":
        stop()
    elif command != "status":
        print(__doc__, file=sys.stderr)
        return 2
    print(status())
    return 0


if __name__ == "__main__":
    sys.exit(main())
