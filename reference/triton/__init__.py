"""Delta kernels in Triton: the golden model's integers on a GPU, or interpreted on the CPU."""
