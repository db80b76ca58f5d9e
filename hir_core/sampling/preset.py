"""The settings for drawing tokens that come with a model, in its generation_config.json, for `sampling.preset: model`.

Reads a model's `GenerationConfig`. Which tokens the settings allow is up to `draw`.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from hir_core.config import SamplingConfig
from hir_core.errors import ConfigError
from hir_core.launch.job_spec import SampleStep

NAMES = ("temperature", "top_p", "top_k", "min_p")
NO_LIMIT = {"top_p": 1.0, "top_k": 0, "min_p": 0.0}
"""Values by which a model says that it leaves no token out."""


def settings_taken(step: SampleStep, generation_config: Any) -> dict[str, float]:
    """The settings that a step takes from its model: those that the step leaves unset; none without a preset.

    Raises:
        ConfigError: the step has a preset, and the model has no such settings, or one that cannot be.
    """
    if step.preset is None:
        return {}
    named: dict[str, Any] = {name: getattr(generation_config, name, None) for name in NAMES}
    found = {name: value for name, value in named.items() if value is not None and value != NO_LIMIT.get(name)}
    if not found:
        raise ConfigError(
            f"sampling.preset is `model`, but the model's generation_config.json has none of {', '.join(NAMES)}: "
            "remove it, or set those that you want under `sampling`"
        )
    try:
        SamplingConfig.model_validate(found)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise ConfigError(
            f"the model's generation_config.json: `{name}` has {found[name]!r}, which sampling.{name} cannot be: set "
            "it yourself, or remove sampling.preset"
        ) from None
    return {name: value for name, value in found.items() if getattr(step, name) is None}
