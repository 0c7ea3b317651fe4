"""How many of MobileNetV2's blocks should train, and what fine-tuning does to what they compute."""
