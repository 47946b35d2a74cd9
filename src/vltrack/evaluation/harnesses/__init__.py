"""Adapters that run our trackers inside the got10k package and the VOT toolkit."""
