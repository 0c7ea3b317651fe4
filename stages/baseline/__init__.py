"""A CNN from scratch beside the frozen transfer model, on shares of the training images."""
