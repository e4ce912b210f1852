"""The contract of components, as checks that anybody's component can be put through."""

from llamazoo.testing.kit import BASE, CHECKS, Failure, Subject, check_component, failures, subject

__all__ = ["BASE", "CHECKS", "Failure", "Subject", "check_component", "failures", "subject"]
