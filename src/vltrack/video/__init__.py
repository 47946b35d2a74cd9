"""Pictures in, pictures out: one media reader, the H.264 writer, the bounded prefetch. Knows no tracker."""
