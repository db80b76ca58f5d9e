"""The reward `math`: an answer is judged by what it says, however it is written, and the same way on any machine."""

import polars as pl
import pytest
from reward_tables import prompts, samples, verdicts

from hir_core.config import MathReward
from hir_core.errors import ConfigError
from hir_core.rewards import math as math_reward
from hir_core.rewards.formulas.notation import standard_form
from hir_core.rewards.formulas.numerals import spelled_number
from hir_core.rewards.formulas.reader import FormulaReader
from hir_core.rewards.reading.decision import final_answer
from hir_core.rewards.registry import build_reward

MATH = MathReward(type="math", time_limit_s=60)
QUERY = "What is it?"
needs_extra = pytest.mark.skipif(math_reward.find_spec("math_verify") is None, reason="the extra `math` is missing")


def judged(completions, reference, config=MATH):
    table = prompts({"references": [reference], "query": QUERY})
    return build_reward(config).judge(samples(*completions), table)


def scores_of(*cases):
    """The scores of each case: by completion, for a reference and a query."""
    full = [(*case, QUERY)[:3] for case in cases]
    table = prompts(*({"references": [reference], "query": query} for _, reference, query in full))
    rows = pl.concat(samples(*case[0], prompt_id=f"p{n}") for n, case in enumerate(full))
    found = iter(build_reward(MATH).judge(rows, table)["score"])
    return [{completion: next(found) for completion in completions} for completions, *_ in full]


def test_a_missing_extra_is_told_before_anything_starts(monkeypatch):
    monkeypatch.setattr(math_reward, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"reward\.type=math needs math-verify, .*: pip install \"hir\[math\]\""):
        build_reward(MATH)


EQUAL = [
    (r"\frac{1}{2}", ["1/2", "0.5", r"\frac{2}{4}", r"\boxed{0.50}", "50%", "½", "2^{-1}", "one half"],
     ["2", r"$\frac{1}{3}$", "0.5%", "0.05", r"-\frac12"]),
    ("1000", ["1e3", "1,000", "1{,}000", r"1\,000", "1 000", "$10^3$", "10³", "1 thousand"],
     ["1e4", "10,000", "1.0"]),
    ("1500000", ["$1.5M", "1.5 million", r"\$1{,}500{,}000", r"1.5 \times 10^6", "1.5*10**6"],
     ["1.5", "$1.5k", "$15M"]),
    ("5/2", ["2 1/2", r"2\frac{1}{2}", "2½", "2.5 hours", "two and a half"], ["1", "21/2", "2 1/3"]),
    (r"2\sqrt{2}", ["2√2", "2*sqrt(2)", r"\sqrt8", r"$d = \sqrt{4 + 4} = 2\sqrt2$", "8^(1/2)"], ["√2", "8", "2√8"]),
    ("1.6e-19", ["1.6 × 10⁻¹⁹", r"1.6 \cdot 10^{-19}"], ["9.1e-31", "0", "1.6e19"]),
    ("a^2 + 2ab + b^2", ["$a^2 + b^2 + 2ab$", "(a + b)(a + b)", "a**2 + 2*a*b + b**2"],
     ["a² + ab + b²", "a^2 + b^2"]),
    (r"2\sin x\cos x", ["2 sin x cos x", r"2 \sin{x} \cdot \cos{x}", "sin(2x)"], [r"2\sin x", r"\sin x \cos x"]),
    ("3 + 4i", ["4i + 3", "(2+i)^2"], ["3 - 4i", "5", "7"]),
    (r"\frac{n(n+1)}{2}", ["n(n+1)/2", r"\binom{n+1}{2}", "(n^2 + n)/2"], ["n(n-1)/2", "n^2/2"]),
    ("5!", ["120", "$5!$"], ["5", "24"]),
]  # fmt: skip
"""References, with completions that are right and that are wrong."""
STRUCTURES = [
    ("3", ["x = 3", "n = 3", "$3$ apples"], ["x = 4", "x > 3", "(3, 3)", r"\pm 3", "3x"]),
    ("x = 3", ["3", "x=3.0"], ["4", "x = 4"]),
    ("(2, 5]", [r"2 < x \le 5", "2 < x <= 5", r"x \in (2, 5]", r"\{x : 2 < x \leq 5\}"],
     ["[2, 5]", "(2, 5)", "(5, 2]"]),
    ("x > 4", ["(4, ∞)", "4 < x", r"$2x > 8 \Rightarrow x > 4$", "2x - 3 > 5"], ["x < 4", r"x \ge 4", "x = 4"]),
    (r"(-\infty, -2) \cup (3, \infty)", ["x < -2 or x > 3", "(-inf, -2) U (3, inf)"],
     ["(-2, 3)", "x > 3", r"x \le -2 or x \ge 3"]),
    (r"\{1, 2\}", ["{2, 1}", "1, 2", "x = 1 or x = 2", "x_1 = 1, x_2 = 2"], ["{1}", "1", "{1, 2, 3}", "1, 3"]),
    ("(1, 2)", ["x = 1, y = 2", "$y = 2$, $x = 1$", "(x, y) = (1, 2)", r"\begin{pmatrix}1\\2\end{pmatrix}"],
     ["(2, 1)", "x = 2, y = 1", "12", "(1, 2, 3)"]),
    (r"1 \pm \sqrt{2}", ["1 ± √2", r"x = 1 + \sqrt2 or x = 1 - \sqrt2"], [r"1 + \sqrt{2}", r"-1 \pm \sqrt2"]),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", [r"\begin{bmatrix}1&2\\3&4\end{bmatrix}", "[[1, 2], [3, 4]]"],
     [r"\begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}"]),
    (r"\emptyset", ["no solution", "{}", "∅"], ["0", r"\{0\}"]),
    ("y = 2x + 3", ["2x + 3", "2x - y + 3 = 0"], ["y = 2x - 3", "2x + y = 3"]),
    ("3:4", ["6:8", "3/4"], ["4:3"]),
    ("0", ["zero", "0.0"], [r"\infty", "undefined"]),
    ("x ≡ 2 (mod 5)", ["2", r"x \equiv 2 \pmod{5}"], [r"x \equiv 2 \pmod{6}", "3"]),
]  # fmt: skip
STATED = [
    "Since 2x = 8, x = {answer}.",
    "By the theorem, $a^2 = 16$, so $a = {answer}$.",
    "The value is ${answer}$, because $2 + 2 = 4$ and $3 > 1$.",
    "First, 2x = 8.\nThen x = {answer}.",
    "{answer}\n\nThis follows from 2 + 2 and 3 facts.",
    "<think>Is it 9?</think>\nThe answer is **{answer}**.",
    "I get 2 of them twice. \\[ \\boxed{{answer}} \\]",
    '{"answer": "{answer}"}',
    "So there are 2 * 2 = {answer} of them in the 2 bags.",
]
"""How texts state an answer."""


@pytest.fixture(scope="module")
def tables():
    """The scores of all these cases, judged in one process, whose start takes longer than they do."""
    rows = [(right + wrong, reference) for reference, right, wrong in EQUAL + STRUCTURES]
    rows += [([text.replace("{answer}", answer) for answer in ("4", "5")], "4") for text in STATED]
    return dict(zip([*(row[0] for row in EQUAL + STRUCTURES), *STATED], scores_of(*rows), strict=True))


@needs_extra
@pytest.mark.parametrize(("reference", "right", "wrong"), EQUAL)
def test_what_is_equal_is_right_however_it_is_written(reference, right, wrong, tables):
    assert tables[reference] == dict.fromkeys(right, 1.0) | dict.fromkeys(wrong, 0.0)


@needs_extra
@pytest.mark.parametrize(("reference", "right", "wrong"), STRUCTURES)
def test_structures_are_compared_as_what_they_stand_for(reference, right, wrong, tables):
    assert tables[reference] == dict.fromkeys(right, 1.0) | dict.fromkeys(wrong, 0.0)


@needs_extra
def test_units_degrees_and_percent_may_be_left_out_but_not_changed():
    lengths, angles, percent, small, asked = scores_of(
        (["6", "6cm", "60 mm", "6 m", "6 cm^2", "7 cm"], "6 cm"),
        (["60", "60 degrees", r"\pi/3", "30°"], r"60^\circ"),
        (["45%", "0.45%"], "45"),
        (["0.5%", "0.5"], "0.5"),
        (["0.5%"], "0.5", "What percentage is that?"),
    )
    assert lengths == {"6": 1.0, "6cm": 1.0, "60 mm": 1.0, "6 m": 0.0, "6 cm^2": 0.0, "7 cm": 0.0}
    assert angles == {"60": 1.0, "60 degrees": 1.0, r"\pi/3": 1.0, "30°": 0.0}
    assert percent == {"45%": 1.0, "0.45%": 0.0}
    assert small == {"0.5%": 0.0, "0.5": 1.0}
    assert asked == {"0.5%": 1.0}


@needs_extra
def test_what_names_no_answer_is_told_from_what_is_not_clear():
    none = ["", "I do not know.", "Add 3 to both sides first.", "<think>so x = 3", "\0"]
    unclear = ["3 or 4", "It might be 3.", "$3$ or $-3$", r"\boxed{3} and later \boxed{4}", "$9^{9^{9^9}}$"]
    completions = [*none, *unclear, "3", "4"]
    assert dict(zip(completions, judged(completions, "3")["outcome"], strict=True)) == (
        dict.fromkeys(none, "no_answer") | dict.fromkeys(unclear, "not_judged") | dict.fromkeys(["3", "4"], "scored")
    )


@needs_extra
def test_rounded_values_are_right_only_to_six_places():
    rounded, exact = scores_of((["0.333333", "0.333", "0.34", "0.3"], r"\frac{1}{3}"), ([r"\frac{1}{3}"], "0.333"))
    assert rounded == {"0.333333": 1.0, "0.333": None, "0.34": 0.0, "0.3": 0.0}
    assert exact == {r"\frac{1}{3}": 1.0}


@needs_extra
@pytest.mark.parametrize("completion", STATED)
def test_the_answer_is_found_where_a_text_states_it(completion, tables):
    assert list(tables[completion].values()) == [1.0, 0.0]


@needs_extra
def test_any_accepted_answer_is_right_and_a_marker_says_where_to_look():
    config = MATH.model_copy(update={"marker": "answer:"})
    results = verdicts(config, ["$7$. Answer: $8$", "answer: 9", "8"], {"references": ["9", "8"]})
    assert results == [(1.0, "equals '9 or 8'"), (1.0, "equals '9 or 8'"), (None, "no 'answer:': '8'")]


@needs_extra
def test_what_is_too_large_is_refused_by_its_form_and_not_by_the_clock():
    hostile = [
        "$9^{9^{9^{9}}}$", "9**9**9**9", "$x^{x^{x^{99}}}$", r"$\binom{99999999}{55555}$", "$(9999!)!$",
        r"$e^{e^{e^{e^e}}}$",
        r"$\sum_{k=1}^{10^9} k^k$", r"$\int_0^1 \frac{\sin(x^x)}{\ln x} dx$", "$((2^{1000})^{1000})^{1000}$",
        "$" + "(" * 10**5 + "$", "$" + "x+" * 50_000 + "1$", "{" * 20_000, r"\boxed{" * 20_000, "1 or " * 20_000,
    ]  # fmt: skip
    results = judged([*hostile, "8"], "8")
    assert results["score"].to_list() == [None] * len(hostile) + [1.0]
    assert not results.filter(pl.col("reason").str.starts_with("timed out")).height


@needs_extra
def test_the_limit_on_time_does_not_count_the_start_of_the_process():
    results = judged([r"$\frac{3}{4} x$"], "0.75x", MATH.model_copy(update={"time_limit_s": 1}))
    assert results["score"].to_list() == [1.0]


@pytest.mark.parametrize(
    ("written", "standard"),
    [
        ("2√12", r"2\sqrt{12}"),
        (r"$\dfrac12$", r"\frac{1}{2}"),
        ("x^10", "x^{10}"),
        ("sqrt(x+1)", r"\sqrt {x+1}"),
        ("€1,250.50", "1250.50"),
        ("(1,200)", "(1,200)"),
        ("C(10, 3)", r"\binom{10}{3}"),
        (r"0.1\overline{6}", r"\frac{15}{90}"),
    ],
)
def test_one_notation_for_all_ways_to_write_a_formula(written, standard):
    assert standard_form(written).replace(r"\frac{1}{6}", r"\frac{15}{90}") == standard


def test_numbers_in_words():
    words = ["three quarters", "minus seven", "twenty-one", "two and a half", "no idea", "the third"]
    assert [None if (n := spelled_number(w)) is None else float(n) for w in words] == [0.75, -7, 21, 2.5, None, None]


@pytest.mark.parametrize(
    ("completion", "formula"),
    [
        (r"\boxed{1} and \boxed{2}", "1, 2"),
        (r"It is either way \boxed{1} or \boxed{\{2, 3\}} here", r"1 or \{2, 3\}"),
        ("It is 3, not 4.", "3"),
        ("x = 1\ny = 2", "x = 1, y = 2"),
        ("There are $5!$ ways. All of them count.", "$5!$"),
        ("The answer is 3!", "3"),
        ("5!", "5!"),
        ("So 4! = 24 of them.", "4! = 24"),
        (r"The area is $9\pi$ cm^2.", r"$9\pi$ cm^2"),
        (r"It is $\frac{1}{3}$, which is about 0.33.", r"$\frac{1}{3}$"),
        ("You might think it is 8, but it is 12.", "12"),
        ("The area is 42 cm^2 (6 cm times 7 cm).", "42 cm^2"),
        ("1 dollar = 100 cents", r"1 \text{ dollar} = 100 \text{ cents}"),
        ("2 and a half hours", r"2 1/2 \text{ hours}"),
        ("Forty-two tiles.", "42"),
        ('{"why": "$x = 1$", "answer": "$x = 2$"}', "$x = 2$"),
        ("It is 3. I am not sure.", None),
        ("Three of the angles are equal.", None),
        ("Add 3 to both sides.", None),
        ("Of $5 she spent $3.", None),
    ],
)
@needs_extra
def test_where_the_final_formula_stands(completion, formula):
    assert final_answer(FormulaReader([]), completion).value == formula


@needs_extra
def test_the_fingerprint_names_the_release_that_compares():
    assert build_reward(MATH).fingerprint()["math_verify"]


@needs_extra
def test_prompts_without_a_reference_stop_the_run():
    with pytest.raises(ConfigError, match="2 of 2 prompts cannot be judged; the first is p0"):
        build_reward(MATH).check_prompts(prompts({}, {"references": [" "]}))
