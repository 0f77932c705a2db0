"""Models: how YAML names them, how they load, and how they score tokens."""

from gopd_lightning.models.specs import ModelSpec, StudentSpec, TeacherSpec

__all__ = ["ModelSpec", "StudentSpec", "TeacherSpec"]
