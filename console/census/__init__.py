"""Real data for the demo: recordings of two models' predictions on rows of the American Community Survey."""

from console.census.facts import PhaseFacts, RecordingFacts
from console.census.recording import make_recording
from console.census.scenarios import SCENARIOS, Scenario, config_yaml

__all__ = ["SCENARIOS", "PhaseFacts", "RecordingFacts", "Scenario", "config_yaml", "make_recording"]
