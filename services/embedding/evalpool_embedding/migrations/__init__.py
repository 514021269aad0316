"""Migrations of the embedding service's database."""
