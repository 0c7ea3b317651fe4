"""Figures, captions and sentences that follow the results."""
