"""What was held equal between the arms, and what was not, in sentences."""

from __future__ import annotations

from typing import Any

from visionkit.compare.comparison import Comparison, arm_name
from visionkit.compare.compatibility import BY_RECORD
from visionkit.compare.report.value_text import value_text
from visionkit.compare.run_record import RunRecord
from visionkit.compare.sentences.number_text import percent
from visionkit.config import flatten

__all__ = ["differing_sentences", "equal_sentences", "has_own_rates"]

_SETTINGS = {"optim.optimizer": "", "optim.weight_decay": "weight decay", "optim.warmup": "warm-up"}


def equal_sentences(comparison: Comparison) -> list[tuple[str, str]]:
    """Return what is the same in every run that is compared: its name, and a sentence with the values.

    Args:
        comparison: The runs; a fact that they did not record is left out.
    """
    last = comparison.records[-1].result
    config, equal = flatten(last["config"]), comparison.equal
    rows = [("Data", _data(comparison))]
    norm = equal.get("norm")
    network = str(config.get("backbone", ""))
    if network:
        rows.append(("Network", f"{network}{f', with {norm} norms' if norm else ''}."))
    rows += [("Length", text) for text in [_length(comparison)] if text]
    rows += [("Learning", text) for text in [_learning(comparison, config, equal)] if text]
    folds = any(record.fold is not None for record in comparison.records)
    order = f"Runs of one seed{' and fold' if folds else ''} see the same images in the same order"
    mixed = (
        (equal.get("draws") or {}).get("batch_transform") if isinstance(equal.get("draws"), dict) else None
    )
    drawn = ", augmented alike" + (f", with {mixed}" if mixed not in (None, "none", "NoneType") else "")
    rows.append(("Order and augmentation", f"{order}{drawn}." if "draws" in equal else f"{order}."))
    if equal.get("precision"):
        rows.append(("Precision", f"{equal['precision']}."))
    skipped = equal.get("skipped_samples")
    if skipped:
        counts = ", ".join(f"{each['count']} of {each['of']} {split}" for split, each in skipped.items())
        rows.append(("Left out", f"The same samples, which could not be read: {counts}."))
    return rows


def differing_sentences(comparison: Comparison) -> list[tuple[str, str]]:
    """Return what differs between the arms: where the weights come from, and what follows from it."""
    rows = []
    for arm in comparison.arms:
        record = next(r for r in comparison.records if arm_name(r.init) == arm)
        parts = [_weights(record), _trained(record), _rate(record), *_arm_settings(comparison, record)]
        parts += [_own_rate(comparison, arm)] if has_own_rates(comparison) else []
        rows.append((arm, "; ".join(filter(None, parts)) + "."))
    return rows


def has_own_rates(comparison: Comparison) -> bool:
    """Return whether each arm was trained at a learning rate that was chosen for it."""
    return all(record.result["config"].get("lrs") for record in comparison.records)


def _data(comparison: Comparison) -> str:
    sizes = comparison.data.get("sizes") or {}
    names = {"train_full": "training", "val": "validation", "test": "test"}
    counts = [f"{sizes[split]:,} {name}" for split, name in names.items() if sizes.get(split)]
    text = f"{comparison.data.get('name', 'data')}" + (f", {', '.join(counts)} images" if counts else "")
    parts = "" if len(comparison.fractions) == 1 else " Of each share, every arm has the same images."
    return f"{text}: every run read files of the same names, labels and sizes.{parts}"


def _length(comparison: Comparison) -> str:
    shortest = [r for r in comparison.records if r.schedule == comparison.schedules[0]]
    schedules = {r.fraction: (r.result.get("equal") or {}).get("schedule") for r in shortest}
    known = {fraction: each for fraction, each in schedules.items() if isinstance(each, dict)}
    if len(known) < len(schedules):  # of another program
        return "".join(f"{each}." for each in dict.fromkeys(schedules.values()) if each)
    images = {fraction: f"{each['images']:,} images" for fraction, each in known.items()}
    seen = ", ".join(f"{text} with {100 * fraction:.3g}%" for fraction, text in images.items())
    seen = next(iter(images.values())) if len(set(images.values())) == 1 else seen
    epochs = {each["epochs"] for each in known.values()}
    update = next(iter(known.values()))["global_batch"]
    length = f", {min(epochs)} epoch{'s' * (min(epochs) != 1)}" if len(epochs) == 1 else ""
    others = [f"{schedule}x" for schedule in comparison.schedules[1:]]
    longer = f" (schedule {comparison.schedules[0]}x; also {', '.join(others)})" if others else ""
    return f"Planned for {seen}{length}{longer}, {update} an update."


def _learning(comparison: Comparison, config: dict[str, Any], equal: dict[str, Any]) -> str:
    schedule = equal.get("schedule")
    parts = []
    if isinstance(schedule, dict):
        rate = f"rate {value_text(schedule['lr'])} at its highest"
        if has_own_rates(comparison):
            tried = sorted(
                {float(r) for record in comparison.records for r in record.result["config"]["lrs"]}
            )
            rate = f"each arm at the best on validation of the rates {', '.join(f'{r:g}' for r in tried)}"
        parts.append(f"{rate}, {schedule['shape']} schedule")
    for name, word in _SETTINGS.items():
        if config.get(name) not in (None, ""):
            parts.append(f"{word} {value_text(config[name])}".strip())
    size = config.get("crop") or config.get("image_size")  # `crop` takes the place of the other
    if size:
        reads = ", of large JPEGs decoded reduced" if config.get("reduced_jpegs") else ""
        sides = " x ".join(map(str, size)) if isinstance(size, list) else size
        parts.append(f"images of {sides} pixels{reads}")
    return f"{', '.join(parts)}." if parts else ""


def _weights(record: RunRecord) -> str:
    weights = record.result.get("weights") or {}
    if record.init == "scratch":
        return "random weights"
    where = [f"trained on {weights['training_data']}"] if weights.get("training_data") else []
    name = weights.get("tag") or weights.get("name") or arm_name(record.init)
    doubt = [f"({weights['doubt']})"] if weights.get("doubt") else []
    return " ".join([f"weights {name}", *where, *doubt])


def _trained(record: RunRecord) -> str:
    counts = record.result.get("parameters") or {}
    if not counts:
        return ""
    total, trained = counts["total"], counts["trainable"]
    return (
        "trains all of its parameters" if total == trained else f"trains {trained:,} of {total:,} parameters"
    )


def _rate(record: RunRecord) -> str:
    """Return how fast the backbone learns beside the head, by the rates that were recorded."""
    head, backbone = (record.curves.get(f"lr/{name}") for name in ("head", "backbone"))
    if head is None or backbone is None or not head.values or not backbone.values:
        return ""
    ratio = max(backbone.values) / max(head.values) if max(head.values) else 0.0
    return (
        "one learning rate for all"
        if abs(ratio - 1) < 1e-3
        else f"its backbone learns at {ratio:.2g} of the rate"
    )


def _own_rate(comparison: Comparison, arm: str) -> str:
    rates = {
        r.fraction: f"{r.result['config']['lr']:g}" for r in comparison.records if arm_name(r.init) == arm
    }
    if len(set(rates.values())) == 1:
        return f"rate {next(iter(rates.values()))}"
    return "rate " + ", ".join(f"{rate} with {percent(fraction)}" for fraction, rate in rates.items())


def _arm_settings(comparison: Comparison, record: RunRecord) -> list[str]:
    """Return the settings of the role "arm" that are not the same in all arms."""
    tables = [flatten(each.result["config"]) for each in comparison.records]
    roles = record.result["roles"]
    names = [name for name, role in roles.items() if role == "arm" and name not in BY_RECORD]
    mine = flatten(record.result["config"])
    return [
        f"{name} {value_text(mine.get(name))}"
        for name in names
        if len({str(table.get(name)) for table in tables}) > 1
    ]
