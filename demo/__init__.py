"""The demo: images, manifests, and the command that builds the images."""
