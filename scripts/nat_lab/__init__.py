"""A laboratory of networks behind NATs, made of Linux network namespaces: `scripts/natlab`, or `NatLab` in tests.

                          internet: a bridge, 45.80.1.0/24
         .10 .11 |          .50 |             | .21                 | .22
             relay           public       gateway-a             gateway-b
                                              | 10.0.1.1            | 10.0.2.1
                                   a1 .2   a2 .3   gateway-a-inner    b1 .2   b2 .3   gateway-b-inner
                                                       | 10.0.11.1                        | 10.0.12.1
                                                    a3 .2                              b3 .2

Hosts are namespaces, gateways are namespaces with nftables in them, and with a `LinkQuality` the uplinks of gateway-a
and gateway-b are cables in user space that delay and lose frames, as the kernel's netem need not be there. `a1` and
`a2` are two hosts of one LAN, `a3` lies behind two NATs.

It needs root, and touches nothing outside of its namespaces: not the machine's own interfaces, addresses or rules.
Standard library only; it knows nothing of sedmad.
"""

from nat_lab.errors import LabError
from nat_lab.lab import NatLab
from nat_lab.link import LinkQuality
from nat_lab.rules import KINDS, Nat

__all__ = ["KINDS", "LabError", "LinkQuality", "Nat", "NatLab"]
