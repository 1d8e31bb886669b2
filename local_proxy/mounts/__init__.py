"""The target's files at their own paths, for the command alone: bind mounts in a mount namespace of its own.

`plan` says what is mounted where, and what can't be; `mounter` does it, in the process that becomes the command; `reasons` says
in words why a system refuses.
"""
