"""Settings of every test process."""

import os

# Two workers with a pool of threads each would spend their time waiting for each other. This must
# happen before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

# Triton decides at its import how kernels run, and diffusers imports it.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
