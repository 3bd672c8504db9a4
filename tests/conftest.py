"""One thread for all tests: tensors this small gain nothing from more, and threads that wait take the others' cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported; processes that a test starts inherit it
