"""Engines: what scores choices and generates text for the worker."""
