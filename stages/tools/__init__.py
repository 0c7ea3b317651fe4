"""What `make` runs beside the stages: no stage, and nothing that a stage imports."""
