"""Write one HTML page of everything that was measured: `sam2lite report`."""
