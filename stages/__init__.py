"""One module per stage of dvc.yaml, run as `python -m stages.<stage>` from the root of the repository."""
