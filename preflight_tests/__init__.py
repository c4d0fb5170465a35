"""The validation: one test for each stage of the documentation."""
