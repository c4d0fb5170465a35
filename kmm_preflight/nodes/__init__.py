"""Nodes and pools: which kernel each node will boot after the upgrade, by the rules of the machine config operator."""
