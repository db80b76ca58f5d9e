"""A relabeler: the instruction under which each answer would have been the right one."""


def relabel(samples):
    return [instruction(sample) for sample in samples]


def instruction(sample):
    if sample["is_correct"]:
        return "Name the larger number."
    named = sample["completion"].strip()
    return "Name the smaller number." if named in sample["query"].strip("?").replace(",", "").split() else None
