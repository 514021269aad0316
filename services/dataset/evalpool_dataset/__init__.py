"""The dataset service: questions, versions, runs and evaluations."""
