# Source this file in bash: `. scripts/env.sh`. The shell then sees the Python of .venv, ROS 2, and this package.
#
# Python sees sam2lite_ros in two halves: the modules in the checkout, and the messages that colcon generated into
# install/. PYTHONPATH names the latter; run from the checkout, sam2lite_ros/__init__.py joins both. The build links
# instead of copying, so an edited module needs no new build, a new file does (scripts/setup.sh).

_sam2lite_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
_sam2lite_prefix=$_sam2lite_root/install/sam2lite_ros

# Puts directory $2 first in the path variable named $1, once.
_sam2lite_prepend() {
  case ":${!1:-}:" in
    *":$2:"*) ;;
    *) export "$1=$2${!1:+:${!1}}" ;;
  esac
}

if [ ! -x "$_sam2lite_root/.venv/bin/python" ]; then
  echo "env.sh: $_sam2lite_root/.venv is missing; run scripts/setup.sh first" >&2
  return 1
fi
export VIRTUAL_ENV=$_sam2lite_root/.venv
_sam2lite_prepend PATH "$VIRTUAL_ENV/bin"

if [ -z "${ROS_DISTRO:-}" ]; then
  # No distribution is sourced: .venv holds ROS as wheels and is itself the prefix.
  _sam2lite_prepend AMENT_PREFIX_PATH "$VIRTUAL_ENV"
  _sam2lite_prepend CMAKE_PREFIX_PATH "$VIRTUAL_ENV"
  _sam2lite_prepend LD_LIBRARY_PATH "$VIRTUAL_ENV/lib"
  for _sam2lite_dir in "$VIRTUAL_ENV"/lib/python3*/site-packages/ros_*.libs; do
    if [ -d "$_sam2lite_dir" ]; then _sam2lite_prepend LD_LIBRARY_PATH "$_sam2lite_dir"; fi
  done
  # The wheels start Python a second time to set what was just set; this says that it is done.
  export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1
fi

# ONNX Runtime from 1.29 on would otherwise report to its maker; the package says so itself, this is for other imports.
export ORT_DISABLE_TELEMETRY=${ORT_DISABLE_TELEMETRY:-1}

if [ -d "$_sam2lite_prefix" ]; then
  _sam2lite_prepend AMENT_PREFIX_PATH "$_sam2lite_prefix"
  _sam2lite_prepend CMAKE_PREFIX_PATH "$_sam2lite_prefix"
  _sam2lite_prepend LD_LIBRARY_PATH "$_sam2lite_prefix/lib"
  for _sam2lite_dir in "$_sam2lite_prefix"/lib/python3*/site-packages \
    "$_sam2lite_prefix"/local/lib/python3*/dist-packages; do
    if [ -d "$_sam2lite_dir" ]; then _sam2lite_prepend PYTHONPATH "$_sam2lite_dir"; fi
  done
fi

# Fast DDS's default shared-memory segment is smaller than one image; a profile of the user's own comes first. Fast DDS 2,
# which Humble and Jazzy have, knows only the older name of the variable; Kilted warns about that one.
if [ -z "${FASTRTPS_DEFAULT_PROFILES_FILE:-}${FASTDDS_DEFAULT_PROFILES_FILE:-}" ]; then
  case ${ROS_DISTRO:-} in
    humble | jazzy) export FASTRTPS_DEFAULT_PROFILES_FILE=$_sam2lite_root/config/fastdds_shm.xml ;;
    *) export FASTDDS_DEFAULT_PROFILES_FILE=$_sam2lite_root/config/fastdds_shm.xml ;;
  esac
fi

unset -f _sam2lite_prepend
unset _sam2lite_root _sam2lite_prefix _sam2lite_dir
