"""Chaos: real daemons as processes, products without a pause, and faults drawn from a seed.

    scripts/chaos --nodes 5 --seconds 300 --fault-every 60 --seed 17

`faults.py` says what goes wrong and when, `injection.py` does it, `network.py` and `slow_disk.py` are what it needs.
`clients.py` multiplies and `changes.py` puts, replaces and removes, both checked against `catalogue.py`;
`inspection.py` looks afterwards whether anything was lost. `history.py` keeps what happened, `figures.py` and
`report.py` tell it, `run.py` composes.

The faults are the seed's; what they meet is the machine's: a seed gives the same faults in the same order, not the same
run to the microsecond. The simulator (`sedmad.testing`) is for those.
"""
