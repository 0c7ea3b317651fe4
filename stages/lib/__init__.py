"""What the stages share. Nothing in here is executed by DVC, and nothing in here imports a stage."""
