"""A command's connections and names come to the mesh: by seccomp user notification on Linux, by proxy variables elsewhere.

`filter` and `machine` are pure: which calls are notified, and what becomes of one. `kernel` wraps the system calls,
`launcher` becomes the command, `supervisor` answers its calls, `dns` its questions; `strategy` chooses between the ways.
"""
