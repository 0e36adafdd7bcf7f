"""Whether a registration can be trusted: what is measured, and what is concluded from it."""

from .error_map import ErrorModel, error_features, find_tissue, read_error_model
from .evidence import find_evidence
from .judge import Judge, Verdict, check_level, reaches, read_judge, refuse_verdicts

__all__ = [
    "ErrorModel",
    "Judge",
    "Verdict",
    "check_level",
    "error_features",
    "find_evidence",
    "find_tissue",
    "reaches",
    "read_error_model",
    "read_judge",
    "refuse_verdicts",
]
