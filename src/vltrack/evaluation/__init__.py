"""Trackers over sequences: runs that resume, results that can be proved, tables, the language audit."""
