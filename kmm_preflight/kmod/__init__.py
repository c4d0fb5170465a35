"""Kernel objects: what their files are called and what stands in them."""
