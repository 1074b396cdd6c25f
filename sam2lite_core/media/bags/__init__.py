"""rosbag2 recordings, without ROS: reading and writing them with `rosbags`."""
