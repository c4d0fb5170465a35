"""Status of preflight objects: read, recorded and written by a run."""
