"""Searches without training: the search's own decisions, against a table of results and a simulated clock."""

from metaloom.orchestrator.simulation.running import Simulation, TrialEnd, simulate
from metaloom.orchestrator.simulation.settings import table_settings

__all__ = ["Simulation", "TrialEnd", "simulate", "table_settings"]
