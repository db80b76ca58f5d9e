"""Ways to draw completions from a model; `hf` runs any `transformers` model under any ZeRO stage."""
