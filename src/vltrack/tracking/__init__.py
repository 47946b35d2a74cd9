"""Trackers over video: crops, network, post-processing, targets and several trackers at once."""

from vltrack.core.threads import wait_passively

wait_passively()  # here, because the modules of this package load torch
