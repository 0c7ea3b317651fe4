"""The training loop, what feeds it and what finished runs leave."""
