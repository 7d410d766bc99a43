"""Early stopping: rules that end a run by its evaluations, as pure reducers."""

from functrain.training.early_stopping.ranking import Halving, PopulationBasedTraining
from functrain.training.early_stopping.rule import FirstOf, Rule
from functrain.training.early_stopping.rules import EarlyStop, Overfit, PredictedStop

__all__ = [
    "EarlyStop",
    "FirstOf",
    "Halving",
    "Overfit",
    "PopulationBasedTraining",
    "PredictedStop",
    "Rule",
]
