"""Status of PreflightValidationOCP objects: read, recorded and written by a run."""
