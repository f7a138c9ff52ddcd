"""What the detector saw: frames from files or through tiled, movies, q-map files."""
