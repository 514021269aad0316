"""What is stored of document sets: plain functions on a connection, one transaction each.

Decisions lock the row of the content they are about: SQLite writes one after the other anyway,
PostgreSQL by `FOR UPDATE`.
"""
