"""Figures of the trackers: recorded shapes of the running code, and one table of places per tracker."""
