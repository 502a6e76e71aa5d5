"""Maps the labels of data sets to the network's class ids, 1..1000; 0 is the background.

Data sets number the classes from 0 or from 1. The base is inferred from synset names, from official validation pictures
(whose classes are known), or from a label 0 or 1000. If it cannot be inferred, that is an error which names
`--label-base`: with the wrong base, every label would be off by one.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping

from recreate_model.network import labels
from recreate_model.support.errors import InputError, UsageError

Label = str | int
"""A label in a data set: the name of a synset, or a class number counted from 0 or 1."""


def class_ids(raw: Mapping[str, Label], base: int | None, where: str) -> dict[str, int]:
    """The class id of each picture, 1..1000, by picture id.

    Args:
        raw: picture id -> label in the data set.
        base: number of the first class, 0 or 1; None to infer it.
        where: name of the label file or data set for error messages.

    Raises:
        InputError: a label is out of range or an unknown synset, or the base cannot be inferred or contradicts `base`.
        UsageError: `base` is given, but no label is a number.
    """
    numbers = {name: label for name, label in raw.items() if isinstance(label, int)}
    if base is not None and not numbers:
        raise UsageError(
            expected="no --label-base where no label is a number",
            found=f"--label-base {base}",
            next_step="leave --label-base out, or give other --images or --labels",
        )
    shift = 1 - _base(numbers, base, where) if numbers else 0
    ids = {}
    for name, label in raw.items():
        found = label + shift if isinstance(label, int) else _by_wnid().get(label, 0)
        if not 1 <= found <= labels.IMAGENET_CLASSES:
            expected = f"1..{labels.IMAGENET_CLASSES}" if shift == 0 else f"0..{labels.IMAGENET_CLASSES - 1}"
            raise InputError(
                expected=f"every label in {where} to be {expected} or one of the {labels.IMAGENET_CLASSES} synsets",
                found=f"{label!r} for {name}",
                next_step="correct it, or give --label-base if classes are numbered from the other base",
            )
        ids[name] = found
    return ids


def class_of_synset(name: str) -> int | None:
    """The class id of a synset such as n01440764; None for any other text."""
    return _by_wnid().get(name)


def known_class(name: str) -> int | None:
    """The class id of an official validation picture by its file name; None for any other name."""
    return labels.validation_classes().get(name.rpartition("/")[2]) if labels.VALIDATION_PREFIX in name else None


def _base(numbers: Mapping[str, int], given: int | None, where: str) -> int:
    by_name = _base_by_name(numbers, where)
    by_range = {(True, False): 0, (False, True): 1}.get(
        (0 in numbers.values(), labels.IMAGENET_CLASSES in numbers.values())
    )
    found = by_range if by_name is None else by_name
    if given is not None and by_name is not None and given != by_name:
        raise InputError(
            expected=f"the labels in {where} to number classes from {given}, as --label-base says",
            found=f"the classes of the official validation pictures, counted from {by_name}",
            next_step=f"give --label-base {by_name}, or leave it out",
        )
    base = found if given is None else given
    if base is None:
        low, high = min(numbers.values()), max(numbers.values())
        raise InputError(
            expected=f"labels in {where} that show whether classes are numbered from 0 or from 1",
            found=f"{len(numbers)} labels from {low} to {high}, which fit " + ("neither" if low == 0 else "both"),
            next_step="give --label-base 0 or --label-base 1",
        )
    return base


def _base_by_name(numbers: Mapping[str, int], where: str) -> int | None:
    """The base inferred from official validation pictures; None if there are none."""
    distances = {name: number - known for name, number in numbers.items() if (known := known_class(name)) is not None}
    if not distances:
        return None
    ((most_common, _),) = Counter(distances.values()).most_common(1)
    for name, distance in distances.items():
        # A few different distances are wrong labels. If no label fits, the classes are in another order.
        if distance not in (0, -1) or distance != most_common:
            raise InputError(
                expected=f"the labels in {where} to be the classes of the official validation pictures, in the order "
                "of their synsets",
                found=f"{numbers[name]} for {name}, whose class is {known_class(name)} counted from 1",
                next_step="correct it; the ids of the challenge's development kit are in another order",
            )
    return 1 + most_common


@functools.cache
def _by_wnid() -> Mapping[str, int]:
    return {wnid: label for label, wnid in enumerate(labels.wnids(), start=1)}
