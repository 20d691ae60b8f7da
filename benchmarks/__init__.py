"""Speed, as ratios of two things measured alternately in one run: `make bench`."""
