"""Trackers over annotated sequences: runs that resume, results that prove themselves, tables, the language audit."""
