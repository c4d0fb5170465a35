"""Modules and target kernels become plans: one case for each Module and kernel."""
