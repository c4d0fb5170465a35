"""Nodes and pools: the kernel that each node will boot after the upgrade, by the machine config operator's rules."""
