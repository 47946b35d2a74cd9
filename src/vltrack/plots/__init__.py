"""Images and figures of results: boxes on frames, contact sheets, curves, timelines, reports."""
