"""What the noise of products is drawn with: a 64-bit key for each column, made by the node that is asked for a product.

Keys travel with their columns, however products are joined: the company of a column changes nothing of its noise, and
a holder that is asked again gives the same answer.
"""

from __future__ import annotations

import secrets

import numpy as np
import numpy.typing as npt

from crossbar import randomness
from sedmad.core.accuracy import Accuracy
from sedmad.errors import ProtocolViolation
from sedmad.wire import messages as wire

NoiseKeys = npt.NDArray[np.uint64]


def noise_keys(accuracy: Accuracy, columns: int, request: int = 0) -> NoiseKeys:
    """Return a key for each column of a product; none where arithmetic is exact.

    Args:
        request: the same number gives the same noise; 0 draws one.
    """
    if not accuracy.target_error:
        return np.empty(0, np.uint64)
    number = request or secrets.randbits(64)
    return np.array([randomness.key(number, column) for column in range(columns)], np.uint64)


def keys_of(request: wire.MultiplyPartitionsRequest, accuracy: Accuracy) -> NoiseKeys:
    """Return the keys that came with a request, or keys of its own for it.

    Raises:
        ProtocolViolation: there is not one for each column.
    """
    if not request.noise_keys:
        return noise_keys(accuracy, request.columns, request.request_id)
    if len(request.noise_keys) != request.columns:
        raise ProtocolViolation(
            "a product does not have a noise key for each column",
            why=f"{len(request.noise_keys)} for {request.columns}",
        )
    return np.array(request.noise_keys, np.uint64)
