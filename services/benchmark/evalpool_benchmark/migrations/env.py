"""Runs the migrations on the connection that the service opened."""

from evalpool_runtime.migrations import run_env

run_env()
