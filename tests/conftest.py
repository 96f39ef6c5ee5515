"""Properties are tested on the same examples in every run, and never fail for being slow."""

from hypothesis import settings

settings.register_profile("kd", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("kd")
