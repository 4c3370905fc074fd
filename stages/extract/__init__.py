"""Stage `extract`: LMDBs to one packed array and one table per split."""
