"""Generated from protos/evalpool/router/v1."""
