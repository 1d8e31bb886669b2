"""The target container's environment and files, for the developer's process.

`spec`, `volumes`, `links`, `quantities`, `script`, `rules` and `paths` are pure: what a pod's spec and objects make of variables
and files, what an exec told, and what of it the process gets. `read` asks the API server; `given` puts it all together for
`hairpin run`.
"""
