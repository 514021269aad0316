"""Generated from protos/evalpool/token/v1."""
