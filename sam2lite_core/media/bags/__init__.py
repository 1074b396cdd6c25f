"""Read and write rosbag2 recordings with `rosbags`, without ROS."""
