"""The report on the side studies."""
