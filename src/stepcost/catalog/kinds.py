"""What the batch of a workload is of."""

IMAGES, TOKENS, OWN = "images", "tokens", "own"
"""``OWN``: only the user's own code knows."""
