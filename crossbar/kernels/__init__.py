"""The compiled kernels. Nothing else imports numba, and nobody imports this room before it is needed: numba and its
compiler take 100 MiB and half a second."""
