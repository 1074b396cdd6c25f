"""Node that plays a folder, a video, a bag or a camera to an image topic."""
