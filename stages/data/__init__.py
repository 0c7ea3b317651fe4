"""Images and stored features: sources, split, augmentation, shares."""
