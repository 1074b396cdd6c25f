#!/usr/bin/env bash
# Builds the ROS package into install/ with colcon, if anything that the build reads has changed. Called by setup.sh.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
. scripts/env.sh
stamp=install/.built

# The installed modules are links into the checkout: their names matter here, their contents do not.
inputs=$(
  {
    cat package.xml CMakeLists.txt cmake/* msg/* srv/* scripts/build.sh .venv/.complete
    find sam2lite_core sam2lite_ros launch config -type f -not -name '*.pyc' | LC_ALL=C sort
  } | sha256sum
)
if [ "$(cat "$stamp" 2>/dev/null)" = "$inputs" ]; then exit 0; fi

echo "setup: building the ROS package with colcon"
rm -f "$stamp"
if [ -d install ]; then find install -xtype l -delete; fi # links to modules that are gone
# Without the log level colcon warns that the wheels' prefix has no local_setup files; it needs none.
colcon --log-level error build --base-paths . --symlink-install --cmake-args \
  -DBUILD_TESTING=OFF "-DPython3_EXECUTABLE=$VIRTUAL_ENV/bin/python" ||
  {
    echo "setup: error: the build failed; log/latest_build/sam2lite_ros/stdout_stderr.log has all of it" >&2
    exit 1
  }
printf '%s\n' "$inputs" >"$stamp"
