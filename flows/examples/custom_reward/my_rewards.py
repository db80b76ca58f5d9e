"""A reward: 1 for an accepted answer, 0 for another number, None where there is no number to judge."""

import re


def score(completions, prompts):
    numbers = [re.findall(r"\d+", text) for text in completions]
    pairs = zip(numbers, prompts, strict=True)
    return [float(found[-1] in prompt["references"]) if found else None for found, prompt in pairs]
