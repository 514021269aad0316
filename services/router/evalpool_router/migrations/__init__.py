"""The router's migrations."""
