"""What a workflow's process must know of the batch system that runs its jobs."""
