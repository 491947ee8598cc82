"""What holds for all tests."""

import os

# Tiny networks are all overhead on several threads, and far slower where tests run side by side. Before torch is there.
os.environ.setdefault("OMP_NUM_THREADS", "1")
