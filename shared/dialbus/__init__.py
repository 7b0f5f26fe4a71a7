"""What two or more services of dialbus have in common, and nothing else."""

__version__ = "0.1.0"
