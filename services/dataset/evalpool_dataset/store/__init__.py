"""The dataset service in its database. All functions run within the caller's transaction."""
