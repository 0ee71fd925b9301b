"""The fast path of simulated arrays: what programming makes of weights, and what reads of it give. Its front is
`crossbar.programmed`; `crossbar.reference` computes the same slowly, device by device, to be compared with."""
