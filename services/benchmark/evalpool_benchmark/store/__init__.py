"""What the benchmark service keeps: plain functions on one connection, within a transaction.

Whoever decides on a pool locks its row first (`pools.lock`), then its entries: in this order.
"""
