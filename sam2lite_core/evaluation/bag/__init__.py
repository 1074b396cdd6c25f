"""The evaluation of a bag: what the node makes of it in real time, against what the tracker makes of it in its own."""
