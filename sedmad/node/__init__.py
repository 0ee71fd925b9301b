"""The daemon: one service per concern, each tying a core to net, store and crossbar.

composition.py       what there is: the services, who knows whom
daemon.py            from start to stop: what opens first, what speaks last
advertising.py       what this node says of itself
membership.py        who is there: drives the membership core over sessions
manifests.py         where matrices lie: signed manifests, kept and asked for
holding.py           copies on this node: reserved, fetched, programmed, given, freed
multiplying.py       products with partitions that lie here
asking.py            products for our clients, joined; product.py runs one, choosing.py decides whom to ask
putting.py getting.py removing.py     a matrix comes in, goes out, goes away
committing.py        the last step of coming in: manifest and name, or everything as it was
releasing.py         what was not committed is given up everywhere
matrices.py status.py                 what clients may ask, over control.py
"""
