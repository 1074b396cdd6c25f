"""The ROS 2 side of SAM2-Lite: thin nodes that convert messages, call `sam2lite_core`, and publish.

The messages are generated into the install space as modules of this package; extending the path joins them with those
of a checkout.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
