"""``vltrack studio``: a local web page to name, track, review and correct targets."""
