"""What applications import: the mesh through the daemon on this machine, blocking and thread-safe.

    mesh = sedmad.connect()
    w = mesh.put("encoder/w1", weights, survive=1)
    y = w @ x

link.py, call.py, connection.py   one socket, one call on it, the way to the daemon
npy.py, source.py                 `.npy` files and arrays as they are stored
upload.py, download.py            a matrix on its way
product.py, explanation.py        panels of a product, and how it came about
mesh.py, matrix.py                what an application holds

It sees the wire only, and loads NumPy when values are at hand: `sedmad status` starts without it.
"""

from sedmad.client.matrix import Matrix
from sedmad.client.mesh import Mesh, connect

__all__ = ["Matrix", "Mesh", "connect"]
