"""Two assumptions of the feature cache, measured: a few augmented views are enough, and half precision is harmless."""
