"""Generated from protos/evalpool/benchmark/v1."""
