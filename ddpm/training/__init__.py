"""The training loop: batches, optimiser, averages; `report` is what only the report's own code does."""
