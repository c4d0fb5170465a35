"""The demo: images, manifests, and the command that makes the images again."""
