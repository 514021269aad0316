"""Run by Alembic."""

from evalpool_runtime.migrations import run_env

run_env()
