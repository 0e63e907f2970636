# SPDX-License-Identifier: Apache-2.0
"""Take a recipe through its stages: train the target or find it trained, attack it or find it attacked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version

import torch

from sfumato.analysis.certify import certify
from sfumato.attacks.base import FeatureAttack
from sfumato.audit import assemble_audit, hardware, run_attack, sample, versions
from sfumato.data.base import Data, Pictures
from sfumato.errors import ConfigError
from sfumato.files import file_hash, load_into, read_tensors, write_json, write_tensors
from sfumato.inversions import audit_weights, check_weights
from sfumato.metrics.image import lpips_is_there
from sfumato.models.resolve import own_code
from sfumato.predictions import audit_predictions
from sfumato.pruning.sparse import compression
from sfumato.recipe import Recipe
from sfumato.recognize import Recognizer, Witness, learn
from sfumato.recognize import assemble as assemble_witness
from sfumato.record import (
    certificates_from_json,
    certificates_to_json,
    compression_from_json,
    compression_to_json,
    findings_from_json,
    findings_to_json,
)
from sfumato.store import Stage
from sfumato.target import Target
from sfumato.targets import build_target, describe_start, read_record, train_built
from sfumato.task import task_for
from sfumato.types import Audit, Certificate, Compression, Findings, Interval, Part, told_as
from sfumato.workplace import Workplace, say_found


def audit_recipe(recipe: Recipe, data: Data, workplace: Workplace, *, title: str = "") -> tuple[Audit, Stage]:
    """Return the audit of a recipe's target, and the target's stage.

    Each attack with each seed is a stage of its own: where one is added to a recipe, it is all that is computed.

    Args:
        recipe: what to train and how to attack it.
        data: its pictures.
        workplace: where.
        title: a line for people; the recipe's name where empty.
    """
    if not (recipe.attacks or recipe.inference or recipe.inverting):
        raise ConfigError(f"recipe '{recipe.name}' has no attack; add a table [[attacks]] with a name, such as \"decoder\"")
    draft = build_target(dataclasses.replace(recipe, pretraining=None), data, workplace)
    check_weights(recipe, draft, data, workplace)  # before anything is trained: what is wrong shows at once
    witness = _witness(recipe, data, workplace)  # likewise
    target = draft if recipe.pretraining is None else build_target(recipe, data, workplace)
    trained = train_built(target, recipe, data, workplace)
    target.sticky = recipe.audit.sticky
    seeds = recipe.seeds
    scored = sample(data, recipe.audit.pictures, seeds[0]) if recipe.attacks else {}
    attack = partial(
        attack_target,
        recipe=recipe,
        target=target,
        trained=trained,
        data=data,
        scored=scored,
        witness=witness,
        workplace=workplace,
    )
    findings = [attack(name, seed) for seed in seeds for name in recipe.attacks]
    made = assemble_audit(
        target,
        data,
        attacks=recipe.attacks,
        scored=scored,
        findings=findings,
        seeds=seeds,
        utility=_utility(recipe, target, trained, data, seeds[0]),
        certificates=_certificates(recipe, target, trained, data, seeds[0], workplace) if recipe.split.cut else (),
        membership=audit_predictions(recipe, target, trained, data, workplace),
        inversion=audit_weights(recipe, target, trained, data, workplace),
        compression=_compression(recipe, target, trained, data, workplace),
        title=title or recipe.name,
    )
    changed = int(str(trained.facts()["parameters"]))
    known = dataclasses.replace(made.target, trained_parameters=changed, start=describe_start(recipe, data))
    return dataclasses.replace(made, target=known), trained


def attack_target(
    name: str,
    seed: int,
    *,
    recipe: Recipe,
    target: Target,
    trained: Stage,
    data: Data,
    scored: Mapping[Part, Pictures],
    witness: Witness | None,
    workplace: Workplace,
) -> Findings:
    """Run one attack of a recipe with one seed, or find it run.

    Args:
        name: of the attack in the recipe.
        seed: of everything random that it does.
        recipe: holds the attack.
        target: trained.
        trained: its stage, whose key says what was attacked.
        data: the pictures.
        scored: the pictures to recover.
        witness: says what it sees in the reconstructions; None asks nobody.
        workplace: where.
    """
    attack, told = recipe.attacks[name], f"{name} on {recipe.name}"
    stage = workplace.store.stage(
        "attack",
        {
            "target": trained.key,
            "name": name,  # the bootstrap of the intervals is drawn by it
            "attack": {"attack": type(attack).__name__, **_settings(attack)},
            "seed": seed,
            "lpips": lpips_is_there(),  # installed later, it adds a number
            "auxiliary": data.part("auxiliary").fingerprint,
            "scored": {part: some.fingerprint for part, some in scored.items()},
            **({} if witness is None else {"recognizer": _definition_of(witness.recognizer, data)}),
            **({"sticky": True} if target.sticky and attack.repeats else {}),  # all else is the same on any device
        },
    )
    record = stage.folder / "findings.json"
    if stage.done:
        say_found(workplace, told)
        return read_record(record, findings_from_json)
    with stage.claim():
        found = run_attack(name, attack, target, data, scored, seed=seed, witness=witness, watch=told_as(workplace.watch, told))
        write_json(record, findings_to_json(found))
        stage.finish({"target": trained.key, "hardware": found.hardware, "versions": versions()})
    return found


def _settings(attack: FeatureAttack) -> dict[str, object]:
    """Return the hyper-parameters that define an attack, without `gray_levels` where it is 0: stages are older than that."""
    return {name: value for name, value in dataclasses.asdict(attack).items() if name != "gray_levels" or value}


def _witness(recipe: Recipe, data: Data, workplace: Workplace) -> Witness | None:
    """Make the recognizer of a recipe ready, if it has one. Audits of the same pictures share what was trained."""
    if recipe.recognizer is None:
        return None
    witness = assemble_witness(recipe.recognizer, data, device=workplace.device)
    if recipe.recognizer.weights is not None:
        return witness
    stage = workplace.store.stage("recognizer", _definition_of(recipe.recognizer, data))
    weights = stage.weights
    if stage.done:
        load_into(witness.network, read_tensors(weights)[0], source=weights)
        return witness
    with stage.claim():
        learn(witness, data, watch=told_as(workplace.watch, f"recognizer of {data.name}"))
        write_tensors(weights, witness.network.state_dict(), {"definition": stage.key})
        stage.finish({"hardware": hardware(workplace.device), "versions": versions()})
    return witness


def _definition_of(recognizer: Recognizer, data: Data) -> dict[str, object]:
    """Return everything that the answers of a recognizer depend on."""
    return {
        **dataclasses.asdict(recognizer),
        "weights": file_hash(recognizer.weights),
        "sfumato": version("sfumato"),
        "code": own_code(recognizer.model),
        "pictures": data.part("train").fingerprint,
    }


def _certificates(
    recipe: Recipe, target: Target, trained: Stage, data: Data, seed: int, workplace: Workplace
) -> tuple[Certificate, ...]:
    """Measure the certificates of a target, or find them measured."""
    given = recipe.audit.entropy_of_x
    pictures = [data.part(name).fingerprint for name in ("private", "test")]
    definition = {"target": trained.key, "pictures": pictures, "entropy_of_x": given, "seed": seed}
    stage = workplace.store.stage("certificates", definition)
    record = stage.folder / "certificates.json"
    if stage.done:
        return read_record(record, certificates_from_json)
    with stage.claim():
        found = certify(target, data, entropy_of_x=given, seed=seed)
        write_json(record, certificates_to_json(found))
        stage.finish({"target": trained.key, "versions": versions()})
    return found


def _compression(recipe: Recipe, target: Target, trained: Stage, data: Data, workplace: Workplace) -> Compression | None:
    """Measure what pruning left of a target, beside the model of the same recipe without defenses, or find it measured."""
    if not any(defense.compresses for defense in recipe.defenses):
        return None
    # The time of a picture is that of a machine.
    stage = workplace.store.stage("compression", {"target": trained.key, "hardware": hardware(workplace.device)})
    record = stage.folder / "compression.json"
    if stage.done:
        return read_record(record, compression_from_json)
    with stage.claim():
        before = build_target(dataclasses.replace(recipe, defenses=(), device=None), data, workplace)
        found = compression(target.split, torch.zeros(1, *data.shape, device=target.device), before=before.split)
        write_json(record, compression_to_json(found))
        stage.finish({"target": trained.key, "versions": versions()})
    return found


def _utility(recipe: Recipe, target: Target, trained: Stage, data: Data, seed: int) -> dict[str, Interval]:
    """Return how useful a target is, which its stage knows where the seed of the defense's random numbers is the recipe's."""
    known = trained.facts().get("utility")
    if seed == recipe.seed and isinstance(known, dict):
        return {name: Interval(**reached) for name, reached in known.items()}
    return task_for(data, recipe.task).utility(target, data, seed)
