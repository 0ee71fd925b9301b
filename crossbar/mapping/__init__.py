"""How weights are laid out on arrays: tiling, encoding, faults and the ways around them, packing.

Everything here is plain numpy and works on one tile or a few at a time; nothing here draws noise or multiplies.
"""
