"""Generated from protos/evalpool/embedding/v1."""
