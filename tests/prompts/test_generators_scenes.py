"""Shapes and coloured objects: solvers that read only the query find its answer, and nothing else gives it away.

The solvers share no code with the generators: they compute shapes from the written coordinates and parse scenes.
"""

import json
import math
import re
from collections import Counter
from functools import cache
from itertools import combinations

import polars as pl
import pytest
from benchmark_files import BBH, needs_benchmarks

from hir_core.config import BigBenchHardPrompts, SyntheticPrompts
from hir_core.errors import ConfigError
from hir_core.prompts.load import load_prompts
from hir_core.prompts.options import read_options
from hir_core.prompts.splits import check_leaks
from hir_core.prompts.synthetic.geometric_shapes import SHAPES
from hir_core.prompts.synthetic.reasoning_about_colored_objects import QUESTIONS
from hir_core.schemas import Prompts, content_key
from hir_core.stages.evaluation import majority_baseline

SHAPE, SCENE = "geometric_shapes", "reasoning_about_colored_objects"
TINY_SCENES = {"min_things": 2, "max_things": 3, "objects": 3, "colors": 3, "options": 3, "questions": ["color"]}
NUMBERS = re.findall(r"\w+", "zero one two three four five six seven eight nine ten eleven twelve thirteen")
CRITICAL = {1: 10.9, 2: 13.9, 3: 16.3, 4: 18.5, 5: 20.6, 6: 22.5, 7: 24.4, 10: 29.6}
"""Chi-square by degrees of freedom that chance exceeds once in a thousand times."""


@cache
def drawn(task, size=1000, dials="{}", seed=1, test_share=0.2):
    source = SyntheticPrompts(
        type="synthetic", task=task, size=size, seed=seed, test_share=test_share, dials=json.loads(dials)
    )
    prompts, rejected = load_prompts([source])
    Prompts.validate(prompts)
    assert (prompts.height, rejected) == (size, {})
    return prompts


def rows_of(task, size=1000, **dials):
    return drawn(task, size, json.dumps(dials)).to_dicts()


def is_uniform(counts, places):
    expected = counts.total() / places
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    return len(counts) == places and chi_square < CRITICAL[places - 1]


# --- geometric shapes ------------------------------------------------------------------------------------------------


def strokes(query):
    """Start, arc (or None) and end of each stroke of the path in a query; checks that the pen is never moved."""
    (path,) = re.findall(r'<path d="([^"]*)"/>', query)
    pen, path_strokes = None, []
    for command, rest in re.findall(r"([MLA]) ([^MLA]*)", path):
        *arc, end = rest.split()
        assert re.fullmatch(r"\d+\.\d\d,\d+\.\d\d", end)
        point = tuple(float(value) for value in end.split(","))
        if command == "M":
            assert pen in (None, point), "the pen goes on from where it was"
        else:
            path_strokes.append((pen, [float(value) for part in arc for value in part.split(",")] or None, point))
        pen = point
    return path_strokes


def shape_of(query):
    """The shape, by what the strokes do."""
    path = strokes(query)
    arcs, lines = [arc for _, arc, _ in path if arc], [arc for _, arc, _ in path if not arc]
    if arcs and lines:
        return "sector"
    if arcs:
        return "circle" if all(arc[0] == arc[1] for arc in arcs) else "ellipse"
    corners = {point for start, _, end in path for point in (start, end)}
    if len(corners) == 4:
        return "rectangle" if all(abs(angle - 90) < 1 for angle in angles(path)) else "kite"
    return {2: "line", 3: "triangle", 5: "pentagon", 6: "hexagon", 7: "heptagon", 8: "octagon"}[len(corners)]


def angles(path):
    """The angle at the start of each stroke of a closed path, in degrees: 180 is straight on."""
    degrees = []
    for (before, _, _), (corner, _, after) in zip([path[-1], *path], path, strict=False):
        ways = [math.atan2(point[1] - corner[1], point[0] - corner[0]) for point in (before, after)]
        turn = abs(math.degrees(ways[0] - ways[1]))
        degrees.append(min(turn, 360 - turn))
    return degrees


def meet(segment, other):
    """Whether two segments share a point, by the sides on which the ends of each lie of the other."""

    def side(a, b, point):
        return (b[0] - a[0]) * (point[1] - a[1]) - (b[1] - a[1]) * (point[0] - a[0])

    (a, b), (c, d) = segment, other
    return side(a, b, c) * side(a, b, d) <= 0 and side(c, d, a) * side(c, d, b) <= 0


def arc_middle(start, arc, end):
    """The middle of a circular arc: from the middle of its chord, to the side that its two flags say."""
    radius, _, _, large, sweep = arc
    dx, dy = end[0] - start[0], end[1] - start[1]
    chord = math.hypot(dx, dy)
    height = math.sqrt(max(0, radius**2 - chord**2 / 4)) * (1 if large != sweep else -1)
    return (start[0] + end[0]) / 2 - height * dy / chord, (start[1] + end[1]) / 2 + height * dx / chord


def test_the_geometry_that_is_written_has_the_name_of_the_reference():
    for row in rows_of(SHAPE):
        letter, name = row["references"]
        assert name == shape_of(row["query"]), row["query"]
        assert f"\n{letter} {name}" in row["query"]


def test_outlines_are_closed_simple_and_have_no_corner_that_is_hardly_one():
    paths = [strokes(row["query"]) for row in rows_of(SHAPE)]
    outlines = [path for path in paths if not any(arc for _, arc, _ in path)]
    closed = [path for path in outlines if len(path) > 1]
    assert len(outlines) > len(closed) > 500
    for path in closed:
        edges = [(start, end) for start, _, end in path]
        assert edges[0][0] == edges[-1][1]
        assert len({start for start, _ in edges}) == len(edges)
        apart = [pair for pair in combinations(range(len(edges)), 2) if (pair[1] - pair[0]) % len(edges) not in (1, -1)]
        apart = [pair for pair in apart if pair != (0, len(edges) - 1)]
        assert not any(meet(edges[n], edges[other]) for n, other in apart)
        assert min(math.dist(*edge) for edge in edges) > 4.99
        assert all(11 < angle < 169 for angle in angles(path))


def test_every_point_lies_on_the_canvas():
    for row in rows_of(SHAPE):
        assert all(0 <= value <= 100 for _, _, end in strokes(row["query"]) for value in end)


def test_kites_have_two_pairs_of_equal_neighbours_and_rectangles_are_no_squares():
    for row in rows_of(SHAPE, shapes=["kite", "rectangle"], options=2, size=200):
        path = strokes(row["query"])
        sides = [math.dist(start, end) for start, _, end in path]
        if row["references"][1] == "kite":
            sides = sides if abs(sides[0] - sides[1]) < 0.03 else [*sides[1:], sides[0]]
            assert abs(sides[0] - sides[1]) < 0.03 > abs(sides[2] - sides[3])
            assert abs(sides[0] - sides[2]) > 1
        else:
            assert abs(sides[0] - sides[2]) < 0.03 > abs(sides[1] - sides[3])
            assert abs(sides[0] - sides[1]) > 1


def test_round_shapes_are_what_their_arcs_say():
    for row in rows_of(SHAPE, shapes=["circle", "ellipse", "sector"], options=3, size=300):
        path, name = strokes(row["query"]), row["references"][1]
        assert path[0][0] == path[-1][2]
        if name == "sector":
            (start, arc, end) = next(stroke for stroke in path if stroke[1])
            (tip,) = {point for stroke in path for point in (stroke[0], stroke[2])} - {start, end}
            assert math.dist(tip, arc_middle(start, arc, end)) < 0.2
        else:
            (start, arc, end), (_, back, _) = path
            axis = math.degrees(math.atan2(end[1] - start[1], end[0] - start[0])) % 180
            assert abs(math.dist(start, end) - 2 * arc[0]) < 0.02
            assert arc == back
            assert name == "circle" or abs((axis - arc[2] + 90) % 180 - 90) < 0.01


def test_the_pen_is_lifted_as_often_as_the_dial_says():
    joints = lifted = 0
    for row in rows_of(SHAPE, break_share=0.3):
        joints += len(strokes(row["query"])) - 1
        lifted += json.loads(row["metadata"])["breaks"]
    assert abs(lifted / joints - 0.3) < 4 * math.sqrt(0.3 * 0.7 / joints)
    assert not any(" M " in row["query"] for row in rows_of(SHAPE, break_share=0, size=50))


def test_each_shape_comes_as_often_as_any_other():
    assert is_uniform(Counter(row["references"][1] for row in rows_of(SHAPE)), len(SHAPES))


# --- coloured objects ------------------------------------------------------------------------------------------------


def answer_of(query):
    """The answer, from the words of the query."""
    text = read_options(query).question
    listed, question = re.fullmatch(r"On the \w+ there are,?(?: from left to right,)? (.*?)\. (.*\?)", text).groups()
    piles = [tuple(phrase.split()) for phrase in re.split(r", | and ", listed)]
    scene = [
        (NUMBERS.index(n) if n in NUMBERS else 1, color, thing if n in ("a", "an") else thing[:-1])
        for n, color, thing in piles
    ]
    for pattern, solve in SOLVERS.items():
        if match := re.fullmatch(pattern, question):
            answer = solve(scene, *match.groups())
            return NUMBERS[answer] if isinstance(answer, int) else answer
    raise AssertionError(question)


def index_of(scene, name):
    """Where in a row `the mug` or `the red thing` is; there must be one such index only."""
    word, *thing = name.split()
    (index,) = [n for n, (_, color, kind) in enumerate(scene) if word == (color if thing else kind)]
    return index


def beside(scene, side, name, color):
    index = index_of(scene, name)
    piles = scene[:index] if side == "left" else scene[index + 1 :]
    return len(piles) - sum(pile[1] == color for pile in piles)


def farthest(scene, name):
    distances = {abs(n - index_of(scene, name)): n for n in range(len(scene))}
    assert Counter(abs(n - index_of(scene, name)) for n in range(len(scene)))[max(distances)] == 1
    return scene[distances[max(distances)]][1]


def remaining(scene, removed, counted):
    def fits(pile, name):
        words = name.split()
        return words == ["things"] or (words[0] == pile[1] if len(words) == 2 else words[0] == f"{pile[2]}s")

    return sum(pile[0] for pile in scene if not fits(pile, removed) and fits(pile, counted))


SOLVERS = {
    r"What color is the (\w+)\?": lambda scene, name: scene[index_of(scene, name)][1],
    r"Is the (\w+) (\w+)\?": lambda scene, name, color: "yes" if scene[index_of(scene, name)][1] == color else "no",
    r"How many things are neither (\w+) nor (\w+)\?": lambda scene, *no: sum(n for n, c, _ in scene if c not in no),
    r"What is the color of the leftmost thing\?": lambda scene: scene[0][1],
    r"What is the color of the rightmost thing\?": lambda scene: scene[-1][1],
    r"What is the color of the thing directly to the left of the (.*)\?": lambda s, name: s[index_of(s, name) - 1][1],
    r"What is the color of the thing directly to the right of the (.*)\?": lambda s, name: s[index_of(s, name) + 1][1],
    r"What is the color of the thing furthest from the (.*)\?": farthest,
    r"How many things to the (left|right) of the (.*) are not (\w+)\?": beside,
    r"If all the (.*) are taken away, how many (.*) are left\?": remaining,
}


@pytest.mark.parametrize("dials", [{}, {"max_things": 8, "max_count": 9, "options": 8}, {"colors": 3, "options": 3}])
def test_reading_the_scene_finds_the_reference(dials):
    rows = rows_of(SCENE, **dials)
    for row in rows:
        letter, text = row["references"]
        assert text == answer_of(row["query"]), row["query"]
        assert f"\n{letter} {text}" in row["query"]
    assert is_uniform(Counter(json.loads(row["metadata"])["question"] for row in rows), len(QUESTIONS))


def test_one_scene_asked_about_more_than_once_is_one_group_on_one_side():
    prompts = drawn(SCENE, 300, json.dumps(TINY_SCENES))
    scenes = {}
    for row in prompts.iter_rows(named=True):
        things = re.search(r"there are (.*?)\. ", row["query"])[1]
        scenes.setdefault(frozenset(re.split(r", | and ", things)), []).append((row["group"], row["split"]))
    assert len(scenes) < 200, "scenes must come back for this to say anything"
    assert all(len(set(sides)) == 1 for sides in scenes.values())
    assert len(scenes) == prompts["group"].n_unique()


def test_articles_fit_their_colors_and_rows_hold_no_two_of_a_kind():
    for row in rows_of(SCENE):
        assert not re.search(r"\ban [^aeiou]|\ba [aeiou]", read_options(row["query"]).question)
        if "left to right" in row["query"]:
            things = re.findall(r"\ban? \w+ (\w+)", read_options(row["query"]).question.split(". ")[0])
            assert len(things) == len(set(things)) >= 3


@pytest.mark.parametrize("kind", [name for name, kind in QUESTIONS.items() if kind.counts])
def test_every_number_that_is_offered_is_right_equally_often(kind):
    answers = Counter(row["references"][1] for row in rows_of(SCENE, questions=[kind], size=600))
    assert is_uniform(answers, 6)


@pytest.mark.parametrize("kind", ["color", "at_the_end", "next_to", "furthest"])
def test_a_color_that_is_not_in_the_scene_is_offered_only_once_the_scenes_are(kind):
    for row in rows_of(SCENE, questions=[kind], size=100, options=3):
        scene = read_options(row["query"]).question
        seen = {color for color in row["options"] if f" {color} " in scene.split(". ")[0]}
        assert len(seen) >= min(3, len(set(re.findall(r"\ban? (\w+) ", scene.split(". ")[0]))))


# --- both ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [SHAPE, SCENE])
def test_options_are_different_and_hold_the_answer_once(task):
    for row in rows_of(task):
        assert len(set(row["options"])) == len(row["options"]) == row["query"].count("\n(")
        assert row["options"].count(row["references"][1]) == 1


@pytest.mark.parametrize(
    ("task", "dials", "places"),
    [
        (SHAPE, {}, 5),
        (SHAPE, {"options": 8}, 8),
        (SCENE, {"questions": ["color", "next_to", "furthest", "at_the_end"]}, 6),
        (SCENE, {"questions": ["neither", "beside", "remaining"]}, 6),
        (SCENE, {"questions": ["yes_no"]}, 2),
    ],
)
def test_the_right_option_stands_in_every_place_equally_often(task, dials, places):
    assert is_uniform(Counter(row["references"][0] for row in rows_of(task, **dials)), places)


@pytest.mark.parametrize(
    ("task", "dials", "chance"),
    [
        (SHAPE, {}, 1 / 5),
        (SCENE, {"questions": ["color", "next_to", "furthest", "at_the_end"]}, 1 / 6),
        (SCENE, {"questions": ["neither"]}, 1 / 6),
        (SCENE, {"questions": ["beside"]}, 1 / 6),
        (SCENE, {"questions": ["remaining"]}, 1 / 6),
        (SCENE, {"questions": ["yes_no"]}, 1 / 2),
    ],
)
def test_the_majority_answer_is_hardly_better_than_chance(task, dials, chance):
    baseline = majority_baseline(drawn(task, 1000, json.dumps(dials)))
    assert baseline < chance + 4 * math.sqrt(chance * (1 - chance) / 1000)


@pytest.mark.parametrize("task", [SHAPE, SCENE])
@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_no_group_crosses_the_split(task, share):
    prompts = drawn(task, 500, json.dumps(TINY_SCENES if task == SCENE else {}), test_share=share)
    sides = prompts.group_by("group").agg(pl.col("split").n_unique(), side=pl.col("split").first())
    assert sides["split"].max() == 1
    assert sides.filter(pl.col("side") == "test").height == round(share * sides.height)


@pytest.mark.parametrize("task", [SHAPE, SCENE])
def test_no_test_prompt_leaks(task):
    check_leaks(drawn(task))


@needs_benchmarks
def test_the_scenes_are_not_those_of_the_benchmark():
    benchmark = BigBenchHardPrompts(type="bbh", path=BBH / f"{SCENE}.json")
    check_leaks(load_prompts([SyntheticPrompts(type="synthetic", task=SCENE, size=1000)], [benchmark])[0])


@pytest.mark.parametrize("task", [SHAPE, SCENE])
def test_one_seed_is_one_table_and_another_seed_another(task):
    first, again, other = (drawn.__wrapped__(task, 200, seed=seed) for seed in (1, 1, 2))
    assert first.equals(again)
    assert not set(first["prompt_id"]) & set(other["prompt_id"])


def test_the_drawn_prompts_never_change():
    keys = [drawn(task, 50)["prompt_id"].to_list() for task in (SHAPE, SCENE)]
    assert content_key(*keys) == "d1bc3eb0e2da68bc"


@pytest.mark.parametrize(
    ("task", "dials", "message"),
    [
        (SHAPE, {"shapes": ["kite", "square"], "options": 2}, r"unknown shapes \['square'\]: choose from line"),
        (SHAPE, {"shapes": ["kite", "line"]}, "at least options = 5 different shapes"),
        (SHAPE, {"shapes": ["kite", "kite"], "options": 2}, "different shapes, each once"),
        (SHAPE, {"option": 3}, "option: unknown dial; did you mean `options`"),
        (SHAPE, {"break_share": 2}, "break_share: .* less than or equal to 1"),
        (SCENE, {"questions": ["colour"]}, r"unknown questions \['colour'\]: choose from color"),
        (SCENE, {"min_things": 7}, "max_things 6 must be at least min_things 7"),
        (SCENE, {"objects": 5}, "at most objects 5"),
        (SCENE, {"colors": 4}, "options 6 must be at most colors 4"),
        (SCENE, {"question": ["color"]}, "did you mean `questions`"),
    ],
)
def test_a_wrong_dial_is_named(task, dials, message):
    with pytest.raises(ConfigError, match=message):
        drawn.__wrapped__(task, 10, json.dumps(dials))


@pytest.mark.parametrize(
    "dials",
    [
        {"min_things": 2, "max_things": 2, "objects": 2, "colors": 3, "options": 2, "max_count": 1},
        {"min_things": 8, "max_things": 8, "objects": 8, "colors": 3, "options": 3},
        {"min_things": 2, "max_things": 8, "options": 12, "max_count": 1},
    ],
)
def test_the_hardest_dials_still_come_to_an_end(dials):
    assert len(rows_of(SCENE, size=60, **dials)) == 60


def test_neighbours_in_a_row_are_asked_about_from_both_sides():
    sides = Counter(re.search(r"directly to the (\w+)", r["query"])[1] for r in rows_of(SCENE, questions=["next_to"]))
    assert is_uniform(sides, 2)
