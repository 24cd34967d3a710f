"""The demo: the whole loop as processes on this machine, with real rows, real models and a clock of its own.

`command` is the beginning and the end, `course` the traffic in between; `replica`, `labels` and `monitor` are the other
processes. Import `command` only when it runs: the processes import this package as well.
"""
