"""Side studies that train every norm again under variants of one setting: `dvc repro stages/variants/dvc.yaml`."""
