"""Pictures of results: boxes on frames, contact sheets, curves. Knows tracks and steps; never loads torch."""
