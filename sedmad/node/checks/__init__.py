"""The checks of `sedmad doctor`, each a function from what is to be examined to a verdict with one line of a fix.

verdict.py        grades, and a check's name and result
daemon.py         how the daemon is asked, if it runs
subject.py        what is examined: a home, and what its daemon says if it runs
examination.py    all checks side by side, within a time
settings.py, identity.py, storage.py, engine.py    what can be told without a daemon
mesh.py, network.py                                 what others say, and the way to them

Nothing is changed by any of them.
"""
