"""A Kubernetes API server of a test's own, with the custom resources of KMM: built from source, run on loopback."""
