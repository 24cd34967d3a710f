"""Give the monitor synthetic worlds whose right answer is known beforehand.

The package is written from the event contract alone and imports nothing of the monitor, so that a misreading in the
monitor cannot hide behind the same misreading in its examiner.
"""
