"""Parts that several rooms use: decompression, typed fields of manifests, and sorted tables on disk."""
