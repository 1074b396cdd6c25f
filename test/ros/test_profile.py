"""The variable that names the Fast DDS profile, by distribution; the user's own comes first."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sam2lite_core.errors import ConfigurationError
from sam2lite_ros.sessions.processes import isolate

ROOT = Path(__file__).resolve().parents[2]
OLD, NEW = "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"


CASES = [
    ({"ROS_DISTRO": "humble"}, {OLD: "ours"}),
    ({"ROS_DISTRO": "jazzy"}, {OLD: "ours"}),
    ({"ROS_DISTRO": "kilted"}, {NEW: "ours"}),
    ({}, {NEW: "ours"}),
    ({"ROS_DISTRO": "jazzy", OLD: "/mine.xml"}, {OLD: "/mine.xml"}),
    ({"ROS_DISTRO": "jazzy", NEW: "/mine.xml"}, {NEW: "/mine.xml"}),
    ({"ROS_DISTRO": "kilted", OLD: "/mine.xml"}, {OLD: "/mine.xml"}),
    ({NEW: "/mine.xml"}, {NEW: "/mine.xml"}),
]


@pytest.fixture
def checkout(tmp_path):
    """A checkout as far as env.sh looks."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "env.sh", tmp_path / "scripts")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch(0o755)
    return tmp_path


@pytest.mark.parametrize(("given", "expected"), CASES)
def test_env_sh_sets_the_variable_that_the_distribution_reads_unless_the_user_has_one(checkout, given, expected):
    done = subprocess.run(
        ["bash", "-euc", f". scripts/env.sh; echo ${{{OLD}-}}; echo ${{{NEW}-}}"],
        cwd=checkout,
        env={"PATH": "/usr/bin:/bin", **given},
        capture_output=True,
        text=True,
        check=True,
    )
    seen = {name: value for name, value in zip((OLD, NEW), done.stdout.split("\n"), strict=False) if value}
    ours = str(checkout / "config" / "fastdds_shm.xml")
    assert seen == {name: ours if value == "ours" else value for name, value in expected.items()}


@pytest.mark.parametrize(("given", "expected"), CASES)
def test_so_does_the_demo_when_it_was_started_without_env_sh(monkeypatch, given, expected):
    kept = {name: value for name, value in os.environ.items() if name not in (OLD, NEW, "ROS_DISTRO")}
    environment = {**kept, **given}
    monkeypatch.setattr(os, "environ", environment)
    isolate()
    seen = {name: environment[name] for name in (OLD, NEW) if name in environment}
    assert seen.keys() == expected.keys()
    for name, value in expected.items():
        if value == "ours":
            assert Path(seen[name]).read_bytes() == (ROOT / "config" / "fastdds_shm.xml").read_bytes()
        else:
            assert seen[name] == value
    assert ("ROS_LOCALHOST_ONLY" in environment) == (given.get("ROS_DISTRO") == "humble")
    assert 1 <= int(environment["ROS_DOMAIN_ID"]) <= 101


def test_an_install_space_that_is_not_sourced_is_named(monkeypatch):
    monkeypatch.setattr(os, "environ", {"AMENT_PREFIX_PATH": "/nowhere"})
    with pytest.raises(ConfigurationError, match=r"source install/setup\.bash"):
        isolate()
