"""MobileNetV2 from scratch, and its modifications."""
