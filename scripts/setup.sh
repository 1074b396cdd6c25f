#!/usr/bin/env bash
# Sets the project up: .venv with everything it needs, and the ROS package built into install/.
# Run again, it only does what has changed since. PYTHON=... chooses the interpreter (default python3).
#
# Where a ROS 2 distribution is sourced ($ROS_DISTRO), that one is used; otherwise ROS 2 Kilted comes as wheels.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
marker=$venv/.made-by-setup # which interpreter and ROS the environment was made for
stamp=$venv/.complete       # the state of the inputs it was completed with; missing means interrupted
cd "$root"

ros_wheels=(
  ros-kilted-{rclpy,rmw-fastrtps-cpp,sensor-msgs,std-srvs,geometry-msgs,diagnostic-msgs,lifecycle-msgs}
  ros-kilted-rosidl-default-generators
  ros-ament-cmake{,-python,-include-directories,-ros-core,-pytest} ros-ament-package
  ros-rosidl-core-generators ros-python-cmake-module catkin_pkg cmake
)
build_tools=(colcon-common-extensions colcon-ros)

say() { printf 'setup: %s\n' "$*"; }
fail() {
  printf 'setup: error: %s\n' "$*" >&2
  exit 1
}

# Prints the interpreter behind $PYTHON: a venv's or a pyenv shim's own would go away with it.
base_python() {
  local named=${PYTHON:-python3}
  command -v "$named" >/dev/null || fail "there is no $named; install Python 3.10 or newer, or set PYTHON=/path/to/it"
  _ROS_WHEELS_BOOTSTRAP_COMPLETE=1 "$named" -I -c 'import os, sys; print(os.path.realpath(sys._base_executable))' ||
    fail "$named does not run"
}

check_machine() {
  local python=$1 version include
  version=$("$python" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  case $version in
    3.1[0-4]) ;;
    *) fail "$python is Python $version; 3.10 to 3.14 are supported (PYTHON=/path/to/another chooses one)" ;;
  esac
  "$python" -I -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python cannot make virtual environments; Debian and Ubuntu have that in python3-venv"
  include=$("$python" -I -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
  [ -f "$include/Python.h" ] || fail "$include/Python.h is missing; Debian and Ubuntu have it in python3-dev"
  command -v c++ >/dev/null || fail "there is no C++ compiler (c++); Debian and Ubuntu have one in build-essential"
  command -v make >/dev/null || fail "there is no make; Debian and Ubuntu have it in build-essential"
  if [ -n "${ROS_DISTRO:-}" ]; then
    command -v cmake >/dev/null || fail "there is no cmake; install it beside ROS 2 $ROS_DISTRO"
    "$python" -c 'import rclpy' 2>/dev/null ||
      fail "ROS_DISTRO is $ROS_DISTRO, but $python cannot import rclpy; source the distribution's setup.bash, choose" \
        "its interpreter (PYTHON=/usr/bin/python3), or unset ROS_DISTRO to get ROS 2 as wheels"
  elif [ "$(uname -sm)" != "Linux x86_64" ]; then
    fail "ROS 2 comes as wheels for Linux x86_64 only, this is $(uname -sm); source a ROS 2 distribution first"
  fi
}

make_environment() {
  local python=$1 identity=$2 options=()
  if [ -n "${ROS_DISTRO:-}" ]; then options=(--system-site-packages); fi
  say "making .venv with $python"
  # What was built with another environment would mix two interpreters.
  rm -rf "$root/build" "$root/install"
  # The marker stays until the rest is gone, so that an interruption here is recognised too.
  if [ -d "$venv" ]; then find "$venv" -mindepth 1 -maxdepth 1 -not -path "$marker" -exec rm -rf {} +; fi
  mkdir -p "$venv"
  printf '%s\n' "$identity" >"$marker"
  "$python" -m venv "${options[@]}" "$venv"
}

install_packages() {
  local constraints=(--constraint constraints.txt) wanted=("${build_tools[@]}")
  if [ -n "${ROS_DISTRO:-}" ]; then
    constraints=(--constraint constraints-distro.txt)
    say "installing the Python packages beside ROS 2 $ROS_DISTRO (about 2 minutes)"
  else
    wanted+=("${ros_wheels[@]}")
    say "installing the Python packages and ROS 2 Kilted (about 2 minutes)"
  fi
  "$venv/bin/python" -m pip install -qq --disable-pip-version-check "${constraints[@]}" \
    "${wanted[@]}" --editable '.[train,export,dev]'
  if [ -z "${ROS_DISTRO:-}" ]; then "$venv/bin/python" scripts/repair_ros_wheels.py; fi
}

# One set-up at a time: the second waits, and then finds everything done.
exec 9<"$root/scripts/setup.sh"
flock 9

python=$(base_python)
identity="$python ${ROS_DISTRO:-wheels} $root"
inputs=$(cat constraints*.txt pyproject.toml setup.py scripts/setup.sh scripts/repair_ros_wheels.py | sha256sum)
if [ ! -f "$marker" ] && [ -n "$(ls -A "$venv" 2>/dev/null)" ]; then
  fail "$venv exists and this script did not make it; move it away first"
fi
if [ ! -f "$stamp" ] || [ "$(cat "$marker")" != "$identity" ]; then
  if [ -f "$marker" ] && [ ! -f "$stamp" ]; then say "the last set-up was interrupted; starting over"; fi
  check_machine "$python"
  make_environment "$python" "$identity"
fi
if [ "$(cat "$stamp" 2>/dev/null)" != "$inputs" ]; then
  rm -f "$stamp"
  install_packages
  printf '%s\n' "$inputs" >"$stamp"
fi

bash scripts/build.sh
say "ready; '. scripts/env.sh' makes a shell see it"
