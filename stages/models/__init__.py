"""Networks: the frozen trunk, norms, heads, and what trains of them."""
