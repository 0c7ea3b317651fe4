"""What both the schema of params.yaml and networks need to know: without torch, since the schema is checked first."""

LAST = 18  # features.18 of MobileNetV2: the 1x1 convolution that always trains
CLASSES = 10  # of CIFAR-10
PLACEMENTS = ("vector", "spatial")  # of the norm in a head
