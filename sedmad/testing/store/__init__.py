"""A store on the simulator: nodes with the real cores, and what the daemon's services do around them, step by step.

Each module mirrors those of `sedmad.node` that it names, in the order of their steps; where the two differ, this one
proves nothing. `truth.py` watches from outside, `sedmad.testing.store_swarm` lets it run in bad weather.
"""
