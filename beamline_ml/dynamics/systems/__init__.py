"""Ready systems, one short file each."""
