"""Numbers only: what the crossbars of a node compute and how exactly. Knows nothing of networks."""
