"""The command. Knows flags, exit codes and what goes to which stream; the work is done on the floors
below.
"""
