from __future__ import annotations

import numpy as np
import pytest
from examples import identity_of, manifest_of

from sedmad.core.partitioning import Partitioning
from sedmad.errors import NonFiniteValues, ProtocolViolation, ShapeMismatch, UsageError
from sedmad.node import scale
from sedmad.node.manifest import read_manifest, sign_manifest
from sedmad.node.panels import panel_dtype, require_exact
from sedmad.node.records import DATA_TYPES
from sedmad.store.manifests import ManifestKey
from sedmad.wire import messages as wire
from sedmad.wire.matrix_digest import matrix_digest

ROWS, COLUMNS = 300, 50
FACTORS = np.linspace(0.5, 2, ROWS).astype("<f4").tobytes()


def scaled_manifest(
    factors: bytes, dtype: str = "int8", digested: bytes | None = None
) -> wire.SignedManifest:
    """Return a signed manifest with a scale, its digest over `digested`."""
    manifest = manifest_of(ROWS, COLUMNS, dtype)
    content = matrix_digest(
        DATA_TYPES[dtype],
        ROWS,
        COLUMNS,
        manifest.partition_rows,
        manifest.digests,
        factors if digested is None else digested,
    )
    key = ManifestKey(content, manifest.owner)
    return sign_manifest(manifest_of(ROWS, COLUMNS, dtype, key=key, scale=factors), identity_of("ann"))


def test_a_manifest_keeps_its_scale() -> None:
    assert read_manifest(scaled_manifest(FACTORS)).scale == FACTORS
    assert read_manifest(scaled_manifest(b"")).scale == b""


def test_equal_values_of_another_scale_are_another_matrix() -> None:
    plain, scaled = (read_manifest(scaled_manifest(factors)) for factors in (b"", FACTORS))
    assert plain.key != scaled.key
    with pytest.raises(ProtocolViolation, match="not those of its matrix"):
        read_manifest(scaled_manifest(FACTORS, digested=b""))


@pytest.mark.parametrize(
    ("factors", "dtype"), [(FACTORS[:-4], "int8"), (FACTORS + bytes(4), "int8"), (FACTORS, "float32")]
)
def test_a_manifest_with_a_scale_that_does_not_fit_is_refused(factors: bytes, dtype: str) -> None:
    with pytest.raises(ProtocolViolation, match="scale"):
        read_manifest(scaled_manifest(factors, dtype))


def test_a_put_with_a_scale_that_does_not_fit_is_refused() -> None:
    def request(factors: bytes, rows: int = ROWS, **changes: bool) -> wire.PutMatrixRequest:
        return wire.PutMatrixRequest(name="w", rows=rows, columns=COLUMNS, scale=factors, **changes)

    scale.check(request(FACTORS), "int8")
    scale.check(request(b""), "float32")
    for factors, rows, dtype in (
        (FACTORS, ROWS, "float16"),
        (FACTORS[1:], ROWS, "int8"),
        (FACTORS, ROWS + 1, "int8"),
        (bytes(4 * (scale.ROWS_MAX + 1)), scale.ROWS_MAX + 1, "int8"),
    ):
        with pytest.raises(ShapeMismatch):
            scale.check(request(factors, rows), dtype)
    infinite = np.full(ROWS, np.inf, "<f4").tobytes()
    with pytest.raises(NonFiniteValues):
        scale.check(request(infinite), "int8")
    scale.check(request(infinite, allow_nonfinite=True), "int8")


def test_a_manifest_of_as_many_factors_as_are_allowed_fits_a_message() -> None:
    cut = Partitioning(scale.ROWS_MAX, 4096, 1)
    assert cut.count > 60
    assert scale.ROWS_MAX * scale.ITEMSIZE + cut.count * 1000 < 900_000


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_a_scaled_panel_is_rounded_once(dtype: str) -> None:
    panel = np.random.default_rng(0).integers(-(2**30), 2**30, (3, ROWS)).astype(dtype)
    exact = panel.astype(np.float64) * np.frombuffer(FACTORS, "<f4")
    result = scale.scaled(panel, FACTORS)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, exact.astype(np.float32))


def test_integers_that_might_not_fit_are_refused() -> None:
    require_exact(np.full((1, 1000), 2**31 // 128 // 1000, np.int32), "w")
    with pytest.raises(UsageError, match="int32"):
        require_exact(np.full((1, 1000), 2**31 // 128 // 1000 + 1, np.int32), "w")
    with pytest.raises(ProtocolViolation, match="int8"):
        panel_dtype("float32", integers=True)
