"""Set up the process of the tests, and so those that tests start: one thread, and Ctrl-C answered.

Tensors this small gain nothing from more threads, and threads that wait take the others' cores. Commands in the
background of a script are born ignoring Ctrl-C, which tests send to the processes that they start.
"""

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported; processes that a test starts inherit it
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
