"""The stages of the documentation: checks of an image, rules between stages, verdict and report."""
