"""The stages of the loop: each makes one version from others, or finds that it is there."""
