"""What would stop an experiment on this machine, found before its first job."""
