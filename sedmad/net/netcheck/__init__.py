"""What the network around a machine is like: probes that ask STUN servers, peers and the gateway, all within seconds.

findings.py   what is found
asking.py     which servers answer, by UDP and TCP
udp.py        mapping, filtering and hairpin over UDP
tcp.py        mapping over TCP, and who can be dialled
around.py     everything at once, within WITHIN_S

It observes; what observations mean is decided elsewhere.
"""
