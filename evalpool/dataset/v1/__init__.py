"""Generated from protos/evalpool/dataset/v1."""
