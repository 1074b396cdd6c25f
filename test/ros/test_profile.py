"""Which variable names the Fast DDS profile, by distribution, and that the user's own comes first."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OLD, NEW = "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"


@pytest.fixture
def checkout(tmp_path):
    """A checkout as far as env.sh looks."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "env.sh", tmp_path / "scripts")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch(0o755)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"ROS_DISTRO": "humble"}, {OLD: "ours"}),
        ({"ROS_DISTRO": "jazzy"}, {OLD: "ours"}),
        ({"ROS_DISTRO": "kilted"}, {NEW: "ours"}),
        ({}, {NEW: "ours"}),
        ({"ROS_DISTRO": "jazzy", OLD: "/mine.xml"}, {OLD: "/mine.xml"}),
        ({"ROS_DISTRO": "jazzy", NEW: "/mine.xml"}, {NEW: "/mine.xml"}),
        ({"ROS_DISTRO": "kilted", OLD: "/mine.xml"}, {OLD: "/mine.xml"}),
        ({NEW: "/mine.xml"}, {NEW: "/mine.xml"}),
    ],
)
def test_env_sh_sets_the_variable_that_the_distribution_reads_unless_the_user_has_one(
    checkout, given, expected
):
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
