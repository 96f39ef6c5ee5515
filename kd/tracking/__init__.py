"""MLflow as a view of the results: one idempotent projection of files into runs.

Jobs write files and never talk to MLflow. `track` reads the manifests, curves and scores of
finished work and makes the MLflow runs agree with them, so the database can be deleted and
rebuilt at any time.
"""

from kd.tracking.projection import Tracked, track
from kd.tracking.subjects import scores_of_table

__all__ = ["Tracked", "scores_of_table", "track"]
