"""Generated from protos/evalpool/common/v1."""
