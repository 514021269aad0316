"""The benchmark service: pools, their funding, entries, leaderboards and payouts."""
