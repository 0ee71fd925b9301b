"""Profiles as data: what is accepted, what is refused and how, and where named ones come from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import crossbar
from crossbar.devices import DeviceProfile, catalogue, load, profile, profiles
from crossbar.devices.laws import ConstantNoise, PolynomialNoise
from crossbar.errors import CrossbarError, NetworkInvalid, ProfileInvalid, ProfileUnknown

MINIMAL = 'name = "mine"\nconductance_min_siemens = 1e-6\nconductance_max_siemens = 1e-4\n'
NAMES = {
    "cmo_hfox",
    "generic",
    "ideal",
    "milo2021",
    "pcm_joshi2020",
    "pcm_nandakumar2019",
    "sonos_agrawal2022",
    "wan2022",
}


def parsed(document: str) -> DeviceProfile:
    return catalogue.parsed(document.encode(), "mine.toml")


def test_every_profile_has_a_name_a_description_and_a_source() -> None:
    assert set(crossbar.profiles()) == NAMES
    for name, description in profiles().items():
        found = crossbar.profile(name)
        assert (found.name, found.description) == (name, description)
        assert description
        assert found.source
        assert found.is_ideal == (name == "ideal")


def test_noisy_profiles_have_the_usual_arrays_and_converters() -> None:
    for name in NAMES - {"ideal"}:
        found = profile(name)
        assert (found.rows, found.columns, found.dac_bits, found.adc_bits) == (128, 128, 8, 8)
        assert found.adc_range == "calibrated"


def test_importing_is_light_until_something_is_used() -> None:
    code = (
        "import sys, crossbar; assert 'numpy' not in sys.modules; dir(crossbar); crossbar.profile('wan2022');"
        "import crossbar.engine; assert not {'scipy', 'numba', 'sedmad'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="nothing"):
        _ = crossbar.nothing


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ProfileUnknown, match=r"(?s)'milo2012'.*ideal.*'milo2021'"):
        profile("milo2012")
    assert issubclass(ProfileUnknown, ValueError)


def test_what_is_left_out_has_a_default() -> None:
    found = parsed(MINIMAL)
    assert found == DeviceProfile(
        name="mine", conductance_min_siemens=1e-6, conductance_max_siemens=1e-4, rows=128, adc_bits=8
    )
    assert not found.is_ideal


def test_whole_numbers_and_laws_are_read() -> None:
    found = parsed(
        'name = "mine"\nconductance_min_siemens = 0\nconductance_max_siemens = 1e-4\nadc_bits = "none"\n'
        'read_noise = "none"\n[programming_noise]\nlaw = "polynomial"\ncoefficients = [1, 2.5]\n'
    )
    assert found.conductance_min_siemens == 0.0
    assert found.adc_bits is None
    assert found.read_noise is None
    assert found.programming_noise == PolynomialNoise(coefficients=(1.0, 2.5))


REFUSED = [
    ("conductance_min_siemens = 1e-3", "conductance_min_siemens", "less than conductance_max_siemens"),
    ("conductance_max_siemens = nan", "conductance_max_siemens", "number from"),
    ("conductance_max_siemens = true", "conductance_max_siemens", "number from"),
    ("adc_bits = 0", "adc_bits", "whole number from 2"),
    ("adc_bits = 1", "adc_bits", "whole number from 2"),
    ("dac_bits = 8.0", "dac_bits", "whole number"),
    ("stuck_on_rate = 1.5", "stuck_on_rate", "from 0 to 1"),
    ("stuck_on_rate = 0.6\nstuck_off_rate = 0.6", "stuck_off_rate", "at most 1 - stuck_on_rate"),
    ("word_line_ohm = -0.1", "word_line_ohm", "from 0"),
    ("bit_line_ohm = inf", "bit_line_ohm", "from 0"),
    ("rows = 0", "rows", "from 1 to 4096"),
    ("columns = 4097", "columns", "from 1 to 4096"),
    ("levels = 1", "levels", "at least 2"),
    ("device_variation = nan", "device_variation", "from 0 to 1"),
    ("read_volts = 0.0", "read_volts", "number from"),
    ('adc_range = "widest"', "adc_range", "'calibrated'"),
    ('name = "../up"', "name", "a-z"),
    ("source = 3", "source", "text"),
    ("adc_bit = 8", "adc_bit", "'adc_bits'"),
    ("read_noise = 0.1", "read_noise", "a table"),
    ('read_noise = { law = "constnat", sd = 1.0 }', "constnat", "'constant'"),
    ("read_noise = { sd = 1.0 }", "read_noise.law", "known:"),
    ('read_noise = { law = "constant" }', "read_noise.sd", "no default"),
    ('read_noise = { law = "constant", sd = -1.0 }', "read_noise.sd", "from 0"),
    ('read_noise = { law = "constant", sd = 1.0, unit_siemens = 0.0 }', "unit_siemens", "number from"),
    ('read_noise = { law = "constant", sd = 1.0, units = 1.0 }', "read_noise.units", "'unit_siemens'"),
    ('read_noise = { law = "polynomial", coefficients = [] }', "read_noise.coefficients", "1 to 16"),
    ('read_noise = { law = "polynomial", coefficients = ["1"] }', "read_noise.coefficients", "numbers"),
    ('read_noise = { law = "polynomial", coefficients = [nan] }', "read_noise.coefficients", "finite"),
    ('read_noise = { law = "polynomial", coefficients = 1.0 }', "read_noise.coefficients", "a list"),
    ('drift = { law = "tabulated", states = [] }', "drift.states", "at least one"),
    (
        'read_noise = { law = "polynomial", coefficients = [1e9, 1e9, 1e9, 1e9], reference_siemens = 1e-15 }',
        "read_noise",
        "finite over the conductance window",
    ),
    ('drift = { law = "constant", sd = 1.0 }', "drift.law", "known:"),
]


@pytest.mark.parametrize(("line", "key", "allowed"), REFUSED)
def test_nonsense_is_refused_naming_file_key_and_what_is_allowed(line: str, key: str, allowed: str) -> None:
    changed = {entry.split(" = ")[0] for entry in line.splitlines()}
    kept = [entry for entry in MINIMAL.splitlines() if entry.split(" = ")[0] not in changed]
    with pytest.raises(ProfileInvalid) as caught:
        parsed("\n".join([*kept, line]))
    assert "mine.toml" in caught.value.what
    assert key in str(caught.value)
    assert allowed in str(caught.value)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ProfileInvalid, match="conductance_max_siemens is missing"):
        parsed('name = "mine"\nconductance_min_siemens = 0.0')


def test_rows_of_a_table_over_time_are_in_order() -> None:
    states = "".join(
        f'[[drift.states]]\nseconds = {seconds}\nsd = {{ law = "saturating", limit = 1.0, scale = 1.0 }}\n'
        for seconds in (0.0, 100.0, 10.0)
    )
    with pytest.raises(ProfileInvalid, match="in order of seconds"):
        parsed(f'{MINIMAL}[drift]\nlaw = "tabulated"\n{states}')


def test_python_is_checked_as_toml_is() -> None:
    with pytest.raises(ProfileInvalid, match="sd"):
        DeviceProfile(
            name="mine",
            conductance_min_siemens=0.0,
            conductance_max_siemens=1e-4,
            read_noise=ConstantNoise(sd=float("nan")),
        )
    with pytest.raises(ProfileInvalid, match="word_line_ohm"):
        DeviceProfile(
            name="mine", conductance_min_siemens=0.0, conductance_max_siemens=1e-4, word_line_ohm=10**400
        )


def test_what_is_no_profile_at_all_is_refused(tmp_path: Path) -> None:
    for content in (b"\xff", b"name", b"a = " + b"[" * 10_000, b"x" * (catalogue.FILE_BYTES_MAX + 1), b""):
        (tmp_path / "mine.toml").write_bytes(content)
        with pytest.raises(ProfileInvalid, match=r"mine\.toml"):
            load(tmp_path / "mine.toml")
    with pytest.raises(ProfileInvalid, match=r"other\.toml: cannot be read"):
        load(tmp_path / "other.toml")


def test_a_number_too_long_for_a_float_is_refused() -> None:
    for digits in (400, 5000):
        with pytest.raises(ProfileInvalid):
            parsed(f'name = "mine"\nconductance_min_siemens = 0\nconductance_max_siemens = 1{"0" * digits}')


def test_a_folder_adds_profiles(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(MINIMAL + 'description = "of my own"')
    assert profile("mine", tmp_path).name == "mine"
    assert profile("milo2021", tmp_path) is profile("milo2021")
    assert profiles(tmp_path) == {**profiles(), "mine": "of my own"}
    with pytest.raises(ProfileUnknown, match="'mine'"):
        profile("mina", tmp_path)
    assert set(profiles(tmp_path / "missing")) == NAMES


def test_a_profile_of_ones_own_is_called_like_its_file_and_like_no_other(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text(MINIMAL)
    with pytest.raises(ProfileInvalid, match="called like its file"):
        profile("other", tmp_path)
    (tmp_path / "milo2021.toml").write_text(MINIMAL.replace("mine", "milo2021"))
    with pytest.raises(ProfileInvalid, match="built-in"):
        profile("milo2021", tmp_path)
    for name in ("../mine", "", "x" * 10_000):
        with pytest.raises(ProfileUnknown):
            profile(name, tmp_path)


# Documents made of the keys that exist, so that values are reached, with any value TOML has.
SCALARS = (
    st.integers(-(10**20), 10**20)
    | st.floats()
    | st.booleans()
    | st.sampled_from(
        ["none", "mine", "constant", "polynomial", "tabulated", "power", "flicker", "cubic", "max"]
    )
    | st.text(max_size=5)
)
KEYS = st.sampled_from(
    [
        *(
            "name",
            "law",
            "sd",
            "coefficients",
            "states",
            "seconds",
            "shift",
            "limit",
            "scale",
            "exponent",
            "most",
        ),
        *("reference_siemens", "unit_siemens", "conductance_min_siemens", "conductance_max_siemens", "drift"),
        *(
            "programming_noise",
            "read_noise",
            "nonlinearity",
            "rows",
            "adc_bits",
            "levels",
            "exponent_mean",
            "x",
        ),
    ]
)
_INNER = st.lists(SCALARS, max_size=3) | st.dictionaries(KEYS, SCALARS, max_size=4)
VALUES = (
    SCALARS | st.lists(SCALARS | _INNER, max_size=3) | st.dictionaries(KEYS, SCALARS | _INNER, max_size=4)
)


def written(value: object) -> str:
    """TOML of a value, inline."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return (
            '"' + "".join(f"\\U{ord(char):08X}" for char in value if not 0xD800 <= ord(char) < 0xE000) + '"'
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {written(item)}" for key, item in value.items()) + "}"
    return repr(value)


@given(st.dictionaries(KEYS, VALUES, max_size=8), st.booleans())
def test_any_document_is_a_profile_or_refused(table: dict[str, object], complete: bool) -> None:
    if complete:
        table = {"name": "mine", "conductance_min_siemens": 1e-6, "conductance_max_siemens": 1e-4, **table}
    _is_a_profile_or_refused("\n".join(f"{key} = {written(value)}" for key, value in table.items()).encode())


@given(st.binary(max_size=200))
def test_any_bytes_are_a_profile_or_refused(content: bytes) -> None:
    _is_a_profile_or_refused(content)


def _is_a_profile_or_refused(content: bytes) -> None:
    try:
        found = catalogue.parsed(content, "mine.toml")
    except ProfileInvalid:
        return
    targets = np.linspace(found.conductance_min_siemens, found.conductance_max_siemens, 5)
    for seconds in (0.0, 1e6):
        sampled = found.programmed(targets, np.random.default_rng(0), seconds)
        assert np.isfinite(sampled).all()
        assert (found.read_sd_siemens(sampled, seconds) >= 0).all()


def test_targets_and_ages_that_cannot_be_are_refused() -> None:
    found, rng = profile("milo2021"), np.random.default_rng(0)
    for target in (np.array([-1e-6]), np.array([np.nan]), np.array([np.inf])):
        with pytest.raises(NetworkInvalid, match="negative or not finite"):
            found.programmed(target, rng)
    for seconds in (-1.0, float("nan"), float("inf")):
        with pytest.raises(NetworkInvalid, match="seconds"):
            found.programmed(np.array([1e-4]), rng, seconds)


def test_every_error_is_one_of_ours() -> None:
    error = ProfileInvalid("what", why="why", hint="hint")
    assert isinstance(error, CrossbarError)
    assert str(error) == "what\nwhy\nhint"
