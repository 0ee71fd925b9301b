"""Circuit relay v2: this node as a relay (hop), behind one (stop, reserving), and dialling through one (client).

Source: https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md
"""
