"""What every service shares: serving, identity, errors, settings, databases and metrics."""
