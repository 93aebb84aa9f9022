"""Tests of the package; three run at once, also on two cores."""

import os

# Every process computes in one thread: those of OpenBLAS wait by spinning, which all of them pay for with each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
