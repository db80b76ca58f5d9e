"""Units of measure: whether two quantities are counted in different ones.

Only spellings are known here. Units that are converted into each other, as mathematics needs it, are in
`rewards/formulas/quantities.py`: a pound is a mass there, and money here.
"""

from __future__ import annotations

from hir_core.rewards.reading.numbers import Quantity

_SPELLINGS = """$ dollar usd|€ euro eur|£ pound gbp|¥ yen|cent|penny pence|km kilometer kilometre|m meter metre|
cm centimeter centimetre|mm millimeter millimetre|mile|ft foot feet|inch|yard|s sec second|min minute|h hr hour|day|
week|month|year|kg kilogram|g gram|mg|lb|oz ounce|ton tonne|l liter litre|ml|gallon|degree|radian"""
_NAMES = {name: names.split()[0] for names in _SPELLINGS.split("|") for name in names.split()}


def differ_in_unit(one: Quantity, other: Quantity) -> bool:
    """Whether both quantities have units of measure, and not the same one."""
    units = _unit(one), _unit(other)
    return "" not in units and units[0] != units[1]


def _unit(quantity: Quantity) -> str:
    """The unit of measure of a quantity in one spelling; empty where it has none."""
    unit = quantity.unit
    return next(
        (_NAMES[name] for name in (unit, unit.removesuffix("s"), unit.removesuffix("es")) if name in _NAMES), ""
    )
