"""A CNN of fewer than 50,000 parameters with a norm of one's choice."""
