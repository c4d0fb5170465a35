"""The validation itself."""
