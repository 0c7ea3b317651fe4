"""What batch size and learning rate do to a small CNN, for each norm."""
