"""Read Modules, and the objects that they need, from a cluster or from manifests."""
