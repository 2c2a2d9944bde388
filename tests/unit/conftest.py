"""How unit tests run on a busy machine: no example is timed, and small matrices are no work to share."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# Read when numpy is imported, which is later: threads that share a small matrix only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
