"""What holds for all tests."""

import os

from hypothesis import settings

# Tiny networks are all overhead on several threads, and far slower where tests run side by side. Before torch is there.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says how busy the machine is.
settings.register_profile("ucadi", deadline=None)
settings.load_profile("ucadi")
