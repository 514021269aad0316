"""Generated from protos/evalpool/worker/v1."""
