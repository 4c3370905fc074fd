"""The pipeline's stages: each reads its parameters, calls `ddpm` and writes files. `dvc.yaml` holds their order."""
