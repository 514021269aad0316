"""The benchmark service's migrations."""
