"""Alembic's entry point."""

from evalpool_runtime.migrations import run_env

run_env()
