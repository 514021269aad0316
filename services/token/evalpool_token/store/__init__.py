"""The ledger in its database: plain functions on one connection, within a transaction.

Sums and comparisons happen in Python, under the lock on the head: SQLite would take quantities for
floats.
"""

from evalpool_token.store import accounts, drafts, head, holds, log, requests

__all__ = ["accounts", "drafts", "head", "holds", "log", "requests"]
