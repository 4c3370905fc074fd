"""What several stages use and what can change their outputs: a dependency in `dvc.yaml`."""
