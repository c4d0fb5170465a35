"""A release: the kernels of its driver toolkits, and the kernels that its OS images boot."""
