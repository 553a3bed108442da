"""A model folder: its manifest, and how one is fetched and verified."""
