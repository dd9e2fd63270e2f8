"""A folder that stands on PYTHONPATH of the processes of runs, and holds one module."""
