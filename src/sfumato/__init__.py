# SPDX-License-Identifier: Apache-2.0
"""Sfumato: what does a vision model give away, how is it trained so that it doesn't, and how is it shipped safely?

The public names are listed here once and imported when they are first used, so that `sfumato --help` does not wait for PyTorch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sfumato.analysis.fisher import classification_fisher, inversion_fisher
    from sfumato.analysis.freezing_advice import suggest_freeze
    from sfumato.attacks.features.averaging import Averaging
    from sfumato.attacks.features.decoder import Decoder
    from sfumato.attacks.features.ensemble import Ensemble
    from sfumato.attacks.features.gan import Gan
    from sfumato.attacks.features.likelihood import Likelihood
    from sfumato.attacks.features.mirror import Mirror
    from sfumato.attacks.features.refine import Refine
    from sfumato.attacks.predictions.base import References
    from sfumato.attacks.weights.brepmi import BREPMI
    from sfumato.attacks.weights.gmi import GMI
    from sfumato.attacks.weights.kedmi import KEDMI
    from sfumato.attacks.weights.lomma import LOMMA
    from sfumato.attacks.weights.plg import PLG
    from sfumato.attacks.weights.ppa import PPA
    from sfumato.audit import audit
    from sfumato.data.augment import Augment
    from sfumato.data.base import Data
    from sfumato.data.game import Game, play
    from sfumato.data.identities import by_identity, pretraining_data
    from sfumato.data.load import load_data
    from sfumato.data.partition import partition
    from sfumato.defenses.app import APP
    from sfumato.defenses.base import Defense
    from sfumato.defenses.bido import BiDO
    from sfumato.defenses.bottleneck import Bottleneck
    from sfumato.defenses.cem import CEM
    from sfumato.defenses.compose import Compose
    from sfumato.defenses.distcorr import DistCorr
    from sfumato.defenses.dpsgd import DPSGD
    from sfumato.defenses.dropout import Dropout
    from sfumato.defenses.mcmia import MCMIA
    from sfumato.defenses.mid import MID
    from sfumato.defenses.midre import MIDRE
    from sfumato.defenses.minmax import MinMax
    from sfumato.defenses.noise import Noise
    from sfumato.defenses.noise_arl import NoiseARL
    from sfumato.defenses.noise_nopeek import NoiseNopeek
    from sfumato.defenses.patrol import PATROL
    from sfumato.defenses.ressfl import ResSFL
    from sfumato.defenses.skip import Skip
    from sfumato.defenses.tl_dmi import TLDMI
    from sfumato.deploy.export import export
    from sfumato.errors import SfumatoError
    from sfumato.evaluator import Evaluator
    from sfumato.inversion_types import Inversion
    from sfumato.membership import audit_answers
    from sfumato.membership_types import Membership
    from sfumato.model_audit import audit_membership
    from sfumato.models.freezing import freeze_points
    from sfumato.models.resolve import build_model
    from sfumato.models.transfer import transfer
    from sfumato.priors.base import Prior
    from sfumato.priors.saved import load_prior, save_prior
    from sfumato.priors.settings import PriorSettings
    from sfumato.priors.train import train_prior
    from sfumato.pruning.footprint import Keep
    from sfumato.recipe import load_recipe
    from sfumato.recognize import Recognizer
    from sfumato.reference import load_references, save_references, train_references
    from sfumato.settings import Optimizer, Schedule, Train
    from sfumato.split import Split, cuts, split, whole
    from sfumato.target import Target
    from sfumato.task import Reidentification
    from sfumato.train import harden
    from sfumato.types import Audit
    from sfumato.weights_audit import audit_inversion

_HOME = {
    "APP": "defenses.app",
    "Audit": "types",
    "Augment": "data.augment",
    "Averaging": "attacks.features.averaging",
    "BREPMI": "attacks.weights.brepmi",
    "BiDO": "defenses.bido",
    "Bottleneck": "defenses.bottleneck",
    "CEM": "defenses.cem",
    "Compose": "defenses.compose",
    "DPSGD": "defenses.dpsgd",
    "Data": "data.base",
    "Decoder": "attacks.features.decoder",
    "Defense": "defenses.base",
    "DistCorr": "defenses.distcorr",
    "Dropout": "defenses.dropout",
    "Ensemble": "attacks.features.ensemble",
    "Evaluator": "evaluator",
    "GMI": "attacks.weights.gmi",
    "Game": "data.game",
    "Gan": "attacks.features.gan",
    "Inversion": "inversion_types",
    "KEDMI": "attacks.weights.kedmi",
    "Keep": "pruning.footprint",
    "LOMMA": "attacks.weights.lomma",
    "Likelihood": "attacks.features.likelihood",
    "MCMIA": "defenses.mcmia",
    "MID": "defenses.mid",
    "MIDRE": "defenses.midre",
    "Membership": "membership_types",
    "MinMax": "defenses.minmax",
    "Mirror": "attacks.features.mirror",
    "Noise": "defenses.noise",
    "NoiseARL": "defenses.noise_arl",
    "NoiseNopeek": "defenses.noise_nopeek",
    "Optimizer": "settings",
    "PATROL": "defenses.patrol",
    "PLG": "attacks.weights.plg",
    "PPA": "attacks.weights.ppa",
    "Prior": "priors.base",
    "PriorSettings": "priors.settings",
    "Recognizer": "recognize",
    "References": "attacks.predictions.base",
    "Refine": "attacks.features.refine",
    "Reidentification": "task",
    "ResSFL": "defenses.ressfl",
    "Schedule": "settings",
    "SfumatoError": "errors",
    "Skip": "defenses.skip",
    "Split": "split",
    "TLDMI": "defenses.tl_dmi",
    "Target": "target",
    "Train": "settings",
    "audit": "audit",
    "audit_answers": "membership",
    "audit_inversion": "weights_audit",
    "audit_membership": "model_audit",
    "build_model": "models.resolve",
    "by_identity": "data.identities",
    "classification_fisher": "analysis.fisher",
    "cuts": "split",
    "export": "deploy.export",
    "freeze_points": "models.freezing",
    "harden": "train",
    "inversion_fisher": "analysis.fisher",
    "load_data": "data.load",
    "load_prior": "priors.saved",
    "load_recipe": "recipe",
    "load_references": "reference",
    "partition": "data.partition",
    "play": "data.game",
    "pretraining_data": "data.identities",
    "save_prior": "priors.saved",
    "save_references": "reference",
    "split": "split",
    "suggest_freeze": "analysis.freezing_advice",
    "train_prior": "priors.train",
    "train_references": "reference",
    "transfer": "models.transfer",
    "whole": "split",
}

__all__ = [
    "APP",
    "Audit",
    "Augment",
    "Averaging",
    "BREPMI",
    "BiDO",
    "Bottleneck",
    "CEM",
    "Compose",
    "DPSGD",
    "Data",
    "Decoder",
    "Defense",
    "DistCorr",
    "Dropout",
    "Ensemble",
    "Evaluator",
    "GMI",
    "Game",
    "Gan",
    "Inversion",
    "KEDMI",
    "Keep",
    "LOMMA",
    "Likelihood",
    "MCMIA",
    "MID",
    "MIDRE",
    "Membership",
    "MinMax",
    "Mirror",
    "Noise",
    "NoiseARL",
    "NoiseNopeek",
    "Optimizer",
    "PATROL",
    "PLG",
    "PPA",
    "Prior",
    "PriorSettings",
    "Recognizer",
    "References",
    "Refine",
    "Reidentification",
    "ResSFL",
    "Schedule",
    "SfumatoError",
    "Skip",
    "Split",
    "TLDMI",
    "Target",
    "Train",
    "audit",
    "audit_answers",
    "audit_inversion",
    "audit_membership",
    "build_model",
    "by_identity",
    "classification_fisher",
    "cuts",
    "export",
    "freeze_points",
    "harden",
    "inversion_fisher",
    "load_data",
    "load_prior",
    "load_recipe",
    "load_references",
    "partition",
    "play",
    "pretraining_data",
    "save_prior",
    "save_references",
    "split",
    "suggest_freeze",
    "train_prior",
    "train_references",
    "transfer",
    "whole",
]


class _Package(ModuleType):
    """The package, in which a public name goes before the file of the same name.

    `sfumato.split` is the function, though the file split.py defines it: Python would put the file there at its first import.
    """

    def __getattr__(self, name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module 'sfumato' has no attribute '{name}'")
        value = getattr(importlib.import_module(f"sfumato.{_HOME[name]}"), name)
        super().__setattr__(name, value)
        return value

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return __all__


sys.modules[__name__].__class__ = _Package
