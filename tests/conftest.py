"""Settings that hold for every test."""

import os

from hypothesis import HealthCheck, settings

# No deadline in either profile: how long an example takes depends on the machine, not on the code under test.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# In continuous integration the same examples every time: a failure there is one that anybody can repeat.
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))
