"""Generated from protos/evalpool/inference/v1."""
