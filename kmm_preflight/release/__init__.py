"""A release: which kernels its driver toolkits name, and whether those are the ones that its OS images boot."""
