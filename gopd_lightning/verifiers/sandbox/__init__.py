"""The sandbox for untrusted programs: a pool of isolated workers, and the scripts that run inside."""

from gopd_lightning.verifiers.sandbox.pool import bubblewrap_refusal, describe, program_pool

__all__ = ["bubblewrap_refusal", "describe", "program_pool"]
