"""Training: one loop and its objectives (supervised, classification, distillation, preference, reward, policy
gradient), and a linear classifier.
"""

from typing import TYPE_CHECKING

from trimtab.base.lazy import lazy_names

if TYPE_CHECKING:
    from trimtab.base.progress import Progress as Progress
    from trimtab.base.records import Encoded as Encoded
    from trimtab.data.split import assign_splits as assign_splits
    from trimtab.training.judged_answers import JudgedAnswers as JudgedAnswers
    from trimtab.training.linear import train_linear as train_linear
    from trimtab.training.loop import LoopSettings as LoopSettings
    from trimtab.training.loop import TrainingJob as TrainingJob
    from trimtab.training.loop import TrainingObjective as TrainingObjective
    from trimtab.training.loop import TrainResult as TrainResult
    from trimtab.training.loop import evaluate_objective as evaluate_objective
    from trimtab.training.loop import train_model as train_model
    from trimtab.training.monitor import DevEvaluation as DevEvaluation
    from trimtab.training.preference import PreferenceObjective as PreferenceObjective
    from trimtab.training.preference import answer_log_probabilities as answer_log_probabilities
    from trimtab.training.rl import PolicyGradient as PolicyGradient
    from trimtab.training.rl import Rollout as Rollout
    from trimtab.training.sft import SupervisedObjective as SupervisedObjective
    from trimtab.training.sft import answer_rows as answer_rows
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
