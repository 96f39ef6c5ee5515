"""Many `kd` processes that import their libraries once.

Importing torch and transformers takes a process five seconds of CPU, more than many a stage of
a micro experiment needs. A *worker* imports them, and the code of the stages; each command is a
fork of it, which goes on as the process would that it stands for: same arguments, environment,
folder and open files, same results. Where the code has changed on disk since, the fork imports it
anew.

The environment variable `KD_WORKER` holds the process id of the worker's owner (Snakemake, see
`rules/common.smk`). The first command starts the worker, the owner's end is the worker's end.
Without the variable, or whenever anything is not as it should be, a command runs by itself.
"""

OWNER = "KD_WORKER"
