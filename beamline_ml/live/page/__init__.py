"""The live page: what a scientist keeps open beside the beamline. It reads tiled, and nothing else."""
