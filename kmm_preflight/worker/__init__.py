"""The work of the KMM worker on a node, between the image pull and the first insmod."""
