"""Search for a retention rule, and teach it to the gate."""
