"""The same generated examples in every run of the suite, none with a limit on its time: whether a change may land hangs on
neither chance nor how busy a machine is. `make chaos` takes the other profile, and examples the tests never had."""

from hypothesis import HealthCheck, settings

settings.register_profile("suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("chaos", settings.get_profile("suite"), derandomize=False)
settings.load_profile("suite")
