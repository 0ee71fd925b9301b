"""The verbs: each module has `configure(parser)`, which says what it takes, and `run(arguments)`, which does it.

A hyphen in a verb is an underscore in its module's name. Summaries stand here, so that help imports no verb.
"""

from __future__ import annotations

# Headings of `sedmad --help`, and what stands below them.
GROUPS: dict[str, dict[str, str]] = {
    "a node and its mesh": {
        "init": "make an identity for this node, and a new mesh",
        "invite": "print a token that admits one more node",
        "join": "make an identity for this node, and join a mesh with a token",
        "start": "run this node's daemon in the foreground",
        "stop": "stop this node's daemon",
        "drain": "empty a node of its copies before it leaves",
    },
    "matrices": {
        "put": "store a .npy file as a matrix of the mesh",
        "get": "write a matrix into a .npy file",
        "apply": "multiply a matrix with the columns of a .npy file",
        "rm": "remove a matrix",
    },
    "seeing": {
        "status": "this node, its mesh and its matrices",
        "peers": "the other nodes",
        "ls": "the matrices of the mesh",
        "profiles": "the devices that simulated crossbars can have",
        "inspect": "where a matrix lies, partition by partition",
        "verify": "whether all bytes are what and where they should be",
        "netcheck": "how this machine is reached from outside, and what would help",
        "doctor": "whether this node is well, and how to heal it",
    },
    "trying": {
        "demo": "see it work: four nodes on this machine, one of which dies",
    },
}
VERBS = {verb: summary for group in GROUPS.values() for verb, summary in group.items()}
