"""The trackers' pictures: what really flows through the code, and one table of places a tracker."""
