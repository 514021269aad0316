"""The worker's migrations."""
