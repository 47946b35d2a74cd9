"""Our trackers inside the harnesses of others: got10k and the VOT toolkit. Knows their contracts, imports
neither.
"""
