"""Read and write frames: pictures, videos, bags, label maps, overlays."""
