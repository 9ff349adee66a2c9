"""The training loop, its schedules, and what it keeps on disk."""
