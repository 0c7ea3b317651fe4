"""The report on the neighbouring studies."""
