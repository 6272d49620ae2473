"""`signmask bench gpu`: times of the Triton kernels, and how empty the deltas of models are."""
