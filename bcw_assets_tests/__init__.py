"""Tests of the package; two run at once, on two cores."""

import os

# Every process computes in one thread: those of OpenBLAS wait by spinning, which two processes pay for with each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
