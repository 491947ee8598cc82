"""What holds for all tests."""

import os

from hypothesis import HealthCheck, settings

# Tiny networks are all overhead on several threads, and far slower where tests run side by side. Before torch is there.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long examples take says how busy the machine is.
settings.register_profile("ucadi", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ucadi")
