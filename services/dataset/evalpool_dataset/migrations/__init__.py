"""The dataset service's migrations."""
