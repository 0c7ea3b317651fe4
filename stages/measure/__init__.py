"""What is measured of trained networks: landscapes, curvature, gradients, errors, and tests of differences."""
