"""How a block of weights is laid out on the devices of a profile: the plan, its predicted error, the ladder."""
