"""Whether a registration can be trusted: what is measured, and what is concluded from it."""

from .evidence import find_evidence
from .judge import Judge, Verdict, check_level, reaches, read_judge

__all__ = ["Judge", "Verdict", "check_level", "find_evidence", "reaches", "read_judge"]
