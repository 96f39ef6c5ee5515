"""kd: declarative, auditable reproduction of knowledge-distillation experiments."""

__version__ = "0.1.0"
