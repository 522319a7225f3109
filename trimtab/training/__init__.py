"""Training: one loop and its objectives (supervised, classification, distillation, preference, reward, policy
gradient), and a linear classifier.
"""

from typing import TYPE_CHECKING

from trimtab.base.lazy import lazy_names

if TYPE_CHECKING:
    from trimtab.base.progress import Progress
    from trimtab.base.records import Encoded
    from trimtab.data.split import assign_splits
    from trimtab.training.judged_answers import JudgedAnswers
    from trimtab.training.linear import train_linear
    from trimtab.training.loop import (
        LoopSettings,
        TrainingJob,
        TrainingObjective,
        TrainResult,
        evaluate_objective,
        train_model,
    )
    from trimtab.training.monitor import DevEvaluation
    from trimtab.training.preference import PreferenceObjective, answer_log_probabilities
    from trimtab.training.rl import PolicyGradient, Rollout
    from trimtab.training.sft import SupervisedObjective, answer_rows
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "trimtab.base.progress": ("Progress",),
            "trimtab.base.records": ("Encoded",),
            "trimtab.data.split": ("assign_splits",),
            "trimtab.training.linear": ("train_linear",),
            "trimtab.training.loop": (
                "LoopSettings",
                "TrainResult",
                "TrainingJob",
                "TrainingObjective",
                "evaluate_objective",
                "train_model",
            ),
            "trimtab.training.monitor": ("DevEvaluation",),
            "trimtab.training.judged_answers": ("JudgedAnswers",),
            "trimtab.training.preference": ("PreferenceObjective", "answer_log_probabilities"),
            "trimtab.training.rl": ("PolicyGradient", "Rollout"),
            "trimtab.training.sft": ("SupervisedObjective", "answer_rows"),
        },
    )

__all__ = [
    "DevEvaluation",
    "Encoded",
    "JudgedAnswers",
    "LoopSettings",
    "PolicyGradient",
    "PreferenceObjective",
    "Progress",
    "Rollout",
    "SupervisedObjective",
    "TrainResult",
    "TrainingJob",
    "TrainingObjective",
    "answer_log_probabilities",
    "answer_rows",
    "assign_splits",
    "evaluate_objective",
    "train_linear",
    "train_model",
]
