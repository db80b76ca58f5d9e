"""The reward `answer`: what it says about outputs as models write them, and how its settings and limits work."""

import time

import pytest
from reward_tables import prompts, row, samples, verdict

from hir_core.config import AnswerReward, RunConfig
from hir_core.errors import ConfigError
from hir_core.rewards.registry import build_reward

ANSWER = build_reward(AnswerReward())
COLOURS = {"query": "Which?\nOptions:\n(A) red\n(B) blue", "options": ["red", "blue"], "references": ["(B)", "blue"]}

CASES = [
    (
        {"query": "Is a whale a mammal?", "references": ["Yes"]},
        {
            "right": [
                "Yes",
                "yes.",
                "**Yes**",
                "Yes!",
                "Yes, a whale is a mammal.",
                "The answer is yes.",
                "True",
                "\\boxed{Yes}",
                "<answer>yes</answer>",
                "Answer: Yes",
                "Final answer: **Yes**",
                "So the answer is yes.",
                "<think>no?</think>Yes",
                "Yes, it is not a fish.",
                "Yes — whales nurse their young.",
                "Absolutely, yes.",
                "A whale breathes air and nurses its young. Therefore, yes, it is a mammal.",
                "Yes\n\nWhales are mammals because they have no gills.",
                "#### Yes",
                "That's true.",
                "It is true.",
                "Yeah",
            ],
            "wrong": [
                "No",
                "no.",
                "No, it is a fish.",
                "The answer is no.",
                "False",
                "**No**",
                "No, a whale is not a mammal.",
                "\\boxed{No}",
                "Nope.",
                "Therefore, the answer is no.",
            ],
            "unclear": ["Yes and no.", "It might be yes.", "The answer is yes. The answer is no."],
            "no_answer": ["Maybe.", "", "I don't know.", "Could you clarify?", "There is no sea in it and the"],
        },
    ),
    (
        {"query": "not ( True ) and ( True ) is", "references": ["False"]},
        {
            "right": [
                "False",
                "False.",
                "**False**",
                "False!",
                "The answer is False.",
                "not (True) = False, and False and True = False.",
                "No",
                "So the answer is False.",
                "not (True) and (True) = False and True = False",
                "Let's evaluate: not True is False. False and True is False.",
                "`False`",
                "The expression evaluates to False.",
                "Remember that not True = False. So False and True is False. So the answer is False.",
                "\\boxed{\\text{False}}",
            ],
            "wrong": ["True", "True!", "**True**", "The answer is True.", "The expression evaluates to True."],
            "unclear": ["True or False"],
            "no_answer": ["What is True?"],
        },
    ),
    (
        {
            "query": "Is the argument, given the explicitly stated premises, deductively valid or invalid?",
            "references": ["invalid"],
        },
        {
            "right": [
                "invalid",
                "Invalid.",
                "The argument is invalid.",
                "**Invalid**",
                "The argument is not valid.",
                "The argument is deductively invalid.",
                "It is not deductively valid.",
                "Let's see if the argument is valid. Premise 1 says X. Thus, the argument is invalid.",
            ],
            "wrong": ["valid", "The argument is valid.", "The argument is deductively valid.", "**valid**"],
            "unclear": ["valid or invalid"],
            "no_answer": ["Yes"],
        },
    ),
    (
        {"query": "What is the capital of France?", "references": ["Paris"]},
        {
            "right": [
                "Paris",
                "paris.",
                "**Paris**",
                "The capital of France is Paris.",
                "Paris is the capital of France.",
                "The answer is Paris.",
                "\\boxed{\\text{Paris}}",
                "<answer>Paris</answer>",
                "Answer: Paris",
                "It's Paris.",
                "I think it is Paris.",
                '"Paris"',
                "The capital of France is **Paris**.",
                "Sure! The capital of France is Paris.",
                "Paris, France",
                "Paris.\n\nParis has been the capital since 987.",
                "The capital is Paris, not Lyon.",
                "Lyon is wrong; the capital is Paris.",
                "The correct answer is: Paris",
                "Final Answer: Paris",
                "<think>Lyon?</think>\n\nThe capital of France is **Paris**.",
                "The capital of France is Paris. Would you like to know more?",
                "Paris (the City of Light)",
            ],
            "wrong": [
                "Lyon",
                "Lyon.",
                "The capital of France is Lyon.",
                "Lyon is the capital of France.",
                "The answer is Lyon.",
                "**Lyon**",
                "Answer: Lyon",
                "\\boxed{Lyon}",
                "It's Lyon.",
            ],
            "unclear": [
                "Paris is wrong, it is Lyon.",
                "Paris or Lyon",
                "The answer is Paris. The answer is Lyon.",
                "Maybe Paris.",
                "It could be Paris.",
            ],
            "no_answer": ["", "I don't know.", "Which France?", "I'm sorry, I can't help with that."],
        },
    ),
    (
        {"query": "Who wrote Hamlet?", "references": ["William Shakespeare", "Shakespeare"]},
        {
            "right": [
                "William Shakespeare",
                "Shakespeare",
                "Hamlet was written by William Shakespeare.",
                "William Shakespeare wrote Hamlet.",
                "The author is Shakespeare.",
                "The play was written by Shakespeare.",
            ],
            "wrong": ["Marlowe", "Christopher Marlowe", "Hamlet was written by Christopher Marlowe."],
        },
    ),
    (
        {"query": "Complete the sequence: [ { <", "references": ["> } ]"]},
        {"right": ["> } ]", ">}]", "The answer is > } ].", "`> } ]`"]},
    ),
    (
        {"query": "Sort the following words alphabetically: List: cat ant bee", "references": ["ant bee cat"]},
        {
            "right": [
                "ant bee cat",
                "ant, bee, cat",
                "1. ant\n2. bee\n3. cat",
                "- ant\n- bee\n- cat",
                "Ant, Bee, Cat",
                "The sorted list is: ant, bee, cat.",
                "Here are the words sorted alphabetically:\n\n1. ant\n2. bee\n3. cat",
                "The sorted words are ant, bee and cat.",
                "**ant bee cat**",
                "\\boxed{\\text{ant bee cat}}",
                "Answer: ant bee cat",
                "cat ant bee -> ant bee cat",
                "ant\nbee\ncat",
                "<answer>ant bee cat</answer>",
                "1. **ant**\n2. **bee**\n3. **cat**",
                "ant bee cat. These are in order.",
                "The original list is cat ant bee. The sorted list is ant bee cat.",
                "[ant, bee, cat]",
                "['ant', 'bee', 'cat']",
                "ant; bee; cat",
                "ant < bee < cat",
                "Sorted: ant bee cat<|im_end|>",
                "The answer is ant bee cat.",
            ],
            "wrong": [
                "bee ant cat",
                "cat, bee, ant",
                "ant bee",
                "1. bee\n2. ant\n3. cat",
                "The sorted list is: bee, ant, cat.",
                "ant bee bee cat",
            ],
            "unclear": ["ant bee cat or bee ant cat"],
            "no_answer": ["", "I don't know"],
        },
    ),
    (
        {"query": "Sort 3 1 2", "references": ["1, 2, 3"]},
        {
            "right": ["1, 2, 3", "1 2 3", "[1, 2, 3]", "1,2,3", "The sorted list is [1, 2, 3]."],
            "wrong": ["3, 2, 1", "[3, 1, 2]"],
        },
    ),
    (
        {"query": "Name the primary colours.", "references": ["red, yellow, blue"]},
        {
            "right": [
                "red, yellow, blue",
                "red, yellow and blue",
                "Red, yellow, and blue.",
                "The primary colours are red, yellow, and blue.",
                "* Red\n* Yellow\n* Blue",
            ],
            "wrong": ["red, blue, yellow"],
        },
    ),
    (
        {"query": "What percent is that?", "references": ["50%"]},
        {
            "right": ["50%", "50", "50 percent", "0.5", "50 %", "\\boxed{50\\%}", "The answer is 50%."],
            "wrong": ["40%", "40"],
        },
    ),
    (
        {"query": "How long?", "references": ["2 hours"]},
        {
            "right": ["2 hours", "2", "two hours", "It takes 2 hours."],
            "wrong": ["3 hours", "3"],
            "unclear": ["120 minutes", "2 minutes"],
        },
    ),
    (
        {"query": "q", "references": ["1/3"]},
        {
            "right": ["1/3", "\\frac{1}{3}", "one third", "1/3 (about 0.33)", "1/3 ≈ 0.333"],
            "wrong": ["1/4", "0.25"],
            "unclear": ["0.333"],
        },
    ),
    (
        {"query": "How many?", "references": ["8", "eight"]},
        {
            "right": [
                "8",
                "eight",
                "Eight.",
                "**8**",
                "I have 8 fruits.",
                "8 fruits",
                "The total is 5 + 3 = 8.",
                "I count: 1, 2, 3 and so on. So, the answer is 8.",
            ],
            "wrong": ["9", "seven", "The answer is 7."],
            "unclear": ["7 or 8"],
            "no_answer": ["none of your business? ok?", "I have a"],
        },
    ),
    (
        {"query": "John has 10 apples and eats 3. How many are left?", "references": ["7"]},
        {
            "right": [
                "John had 10 apples and ate 3. He has 7 apples.",
                "John starts with 10 apples. He eats 3. He has 7 left.",
                "7 apples are left.",
                "John has 7 apples left because 10 - 3 = 7.",
                "10 - 3 = 7",
                "He has 7 apples left after eating 3.",
                "After eating 3 apples, John has 7 left.",
                "He would have 7 left.",
                "To find out, subtract: 10 - 3 = 7. So 7 apples are left.",
                "John has **7** apples left. He started with 10.",
                "7 (10 - 3)",
                "10 minus 3 equals 7.",
                "If John eats 3 of 10 apples, he has 7 apples left.",
            ],
            "wrong": ["John has 6 left.", "10 - 3 = 8"],
            "unclear": ["Possibly 7."],
            "no_answer": ["Let's start with 10 apples. He eats"],
        },
    ),
    (
        {"query": "Ann has 3 boxes with 14 pens each. How many pens does she have?", "references": ["42"]},
        {
            "right": [
                "To find the total number of pens, multiply the number of boxes by the number of pens in each "
                "box:\n\n3 boxes × 14 pens/box = 42 pens\n\nSo, Ann has 42 pens.",
                "Ann has 3 boxes and each has 14 pens, so she has 3 * 14 = 42 pens in total.",
                "**Step 1:** Identify the number of boxes: 3\n**Step 2:** Identify the pens per box: 14\n**Step "
                "3:** Multiply: 3 × 14 = 42\n\n**Answer:** Ann has **42** pens.",
                "3 × 14 = **42**",
                "$3 \\times 14 = 42$",
                "\\(3 \\times 14 = \\boxed{42}\\)",
                "She has 42 pens (3 × 14).",
                "42 pens. Each of the 3 boxes has 14.",
                "The answer is forty-two.",
                "Ann has 42 pens in total, since 3 times 14 is 42.",
                "Let me calculate. 3 boxes with 14 pens each is 3 × 14. That equals 42.",
                "Ann has:\n\n- Box 1: 14 pens\n- Box 2: 14 pens\n- Box 3: 14 pens\n\nTotal: 14 + 14 + 14 = 42 pens",
                "First, we need to find out how many pens are in each box. There are 14. There are 3 boxes. 14 "
                "* 3 = 42. The answer is 42.",
                "14+14+14=42",
                "42.0",
                "42.00",
                " 42 \n",
                "\n\n42",
                "Answer - 42",
                "Answer = 42",
                "answer is 42",
                "ANSWER: 42",
                "The final answer is: 42",
                "Final answer = 42",
                "The total number of pens is 42.",
                "Ann has a total of 42 pens.",
                "In total, Ann has 42 pens.",
                "She has 42.",
                "I first thought 17, but it is 42.",
                "3 + 14 = 17. No, wait, each box has 14, so 3 × 14 = 42.",
                "It's 42, not 17.",
                "Okay, so 3 times 14... 42!",
                "<think>\nOkay, 3*14. That's 42. Let me check: 14*3=42. yes.\n</think>\n\nTo find the total "
                "number of pens Ann has, we multiply:\n\n\\[\n3 \\times 14 = 42\n\\]\n\n**Final Answer:** \\boxed{42}",
                "3*14 is 42</think>42",
                "<|channel|>analysis<|message|>3*14=42<|end|><|start|>assistant<|channel|>final<|message|>42<|return|>",
                "assistant\n42",
                '{"answer": 42}',
                '{"answer": "42"}',
                "```\n42\n```",
                '```json\n{"answer": 42}\n```',
                "Result: 42",
                "42 (forty-two)",
                "Forty-two (42)",
                "The answer is 42 (forty-two).",
                "**Final Answer**\n\n42",
                "## Final Answer\n**42 pens**",
                "# Answer: 42",
                "The number of pens is \\(42\\).",
                "The answer is $\\mathbf{42}$.",
                "So the answer is 3 × 14 = 42.",
                "3 boxes * 14 pens = 42 pens. Ann has 42 pens.",
                "Total pens = 3 x 14 = 42",
                "Number of pens = 42",
                "Thus, Ann has 42 pens in 3 boxes.",
                "Ann has 3 boxes. Each box has 14 pens. 3 x 14 = 42. Ann has 42 pens.",
                "3 × 14 = 42 ✓",
                "≈ 42",
                "about 42 pens",
                "exactly 42",
                "The answer is exactly 42 pens.",
            ],
            "wrong": [
                "43",
                "17",
                "3 + 14 = 17",
                "The answer is 17.",
                "Ann has 17 pens.",
                "3 × 14 = 43 pens",
                "So she has 14 pens.",
                "**17**",
                "\\boxed{17}",
                "The answer is 3.",
                "3",
                "14",
                "Ann has 3 × 14 = 52 pens.",
                "She has 17 pens, not 42.",
                "17.",
            ],
            "unclear": [
                "42 or 43",
                "somewhere between 40 and 45",
                "3 boxes, 14 pens",
                "Answer: 42\nAnswer: 43",
                "\\boxed{42}, \\boxed{43}",
                "It could be 42.",
                "perhaps 42",
                "The answer is either 42 or 17.",
                "more than 42",
                "3 × 14",
            ],
            "no_answer": [
                "",
                "   ",
                "I cannot answer that.",
                "I do not know",
                "As an AI, I don't have access to the boxes.",
                "How many pens are in each box?",
                "<think>3 × 14 = 42",
                "Let's see. First we multiply 3 by",
                "Sorry, I can't help with that.",
                "...",
                "?",
            ],
        },
    ),
    (
        {
            "query": "Where would you find a fox?\nOptions:\n(A) forest\n(B) a dark forest\n(C) an "
            "apartment\n(D) the ocean",
            "options": ["forest", "a dark forest", "an apartment", "the ocean"],
            "references": ["(A)", "forest"],
        },
        {
            "right": [
                "A",
                "(A)",
                "A.",
                "A)",
                "(A) forest",
                "A. forest",
                "A: forest",
                "forest",
                "Forest.",
                "a forest",
                "the forest",
                "A forest",
                "The answer is A",
                "The answer is (A) forest.",
                "The answer is forest.",
                "The correct answer is:\n\n**(A) forest**",
                "**A**",
                "Option A: forest",
                "A fox lives in a forest.",
                "A fox would be found in a forest, so the answer is (A).",
                "I would say A.",
                "You would find a fox in a forest.",
                "The most likely place is (A) forest.",
                "The answer is A because foxes live in forests.",
                "Foxes live in the wild. (A) is the best choice.",
                "A fox is usually found in a forest. Therefore, the correct option is A.",
                "(a)",
                "a",
                "a)",
                "a. forest",
                "{A}",
                "\\boxed{A}",
                "\\text{A}",
                "$A$",
                "My answer is A.",
                "Answer: (A)",
                "Answer:\nA",
                "Answer\nA",
                "Choice: A",
                "Correct answer: A",
                "The best answer is A.",
                "A is the best answer.",
                "It is option (A).",
                "I choose A.",
                "I pick (A) forest.",
                "Let's think. Foxes do not live in apartments (C) or oceans (D). So (A) forest.",
                "(A) forest\n\nFoxes live in forests, not in the ocean.",
                "Both (B) and (C) are wrong. The answer is (A).",
                "Not B, C or D. The answer is A.",
                "(B), (C), and (D) are incorrect, so the answer is (A).",
                "The answer is (A), not (B).",
                "A, since foxes live in forests",
                "Correct option: A. forest",
                "The correct answer is A) forest.",
                "<answer>A</answer>",
                "<answer>\n(A)\n</answer>",
                "### Final answer: **A**",
                "**Answer:** A. forest",
                'The answer is "forest".',
                "Based on the context, the answer is option A.",
            ],
            "wrong": [
                "B",
                "(B)",
                "(B) a dark forest",
                "a dark forest",
                "dark forest",
                "A dark forest",
                "the ocean",
                "ocean",
                "The answer is D.",
                "(C)",
                "C",
                "You would find a fox in a dark forest.",
                "The answer is an apartment.",
                "A fox lives in the ocean.",
                "\\boxed{D}",
                "The answer is a dark forest.",
            ],
            "unclear": [
                "A or B",
                "(A), (B)",
                "not A",
                "The answer is not (C).",
                "(A) forest (B) a dark forest",
                "It might be (A).",
                "forest or ocean",
                "Either A or C.",
            ],
            "no_answer": [
                "E",
                "(E)",
                "zoo",
                "A fox",
                "None of the above",
                "",
                "I don't know.",
                "Which fox do you mean?",
                "I'm not able to answer this question.",
                "A fox is an animal. It eats mice.",
            ],
        },
    ),
    (
        {
            "query": "Which is a fruit?\na) car\nb) apple\nc) stone",
            "options": ["car", "apple", "stone"],
            "references": ["b"],
        },
        {
            "right": [
                "b",
                "B",
                "b)",
                "(b)",
                "apple",
                "b) apple",
                "The answer is b.",
                "The answer is b) apple.",
                "Answer: b",
                "**b**",
                "option b",
            ],
            "wrong": ["a", "c", "(c)", "stone", "The answer is a.", "a) car"],
            "unclear": ["a or b"],
        },
    ),
    (
        {"query": "Say which.", "references": ["Mount Everest"]},
        {
            "right": ["Mount Everest", "mount everest", "It is Mount Everest.", "The answer is Mount Everest."],
            "wrong": ["K2", "Mont Blanc"],
            "unclear": ["Everest", "Mount Everest or K2"],
        },
    ),
    (
        {
            "query": "What is the date today in MM/DD/YYYY?\nOptions:\n(A) 05/01/2021\n(B) 05/11/2021\n(C) 01/05/2021",
            "options": ["05/01/2021", "05/11/2021", "01/05/2021"],
            "references": ["(A)", "05/01/2021"],
        },
        {
            "right": [
                "05/01/2021",
                "(A)",
                "A",
                "The date is 05/01/2021.",
                "(A) 05/01/2021",
                "So the date today is 05/01/2021.",
                "\\boxed{05/01/2021}",
                "Yesterday was April 30, 2021. Therefore today is 05/01/2021.",
            ],
            "wrong": ["05/11/2021", "(B)", "The answer is (C) 01/05/2021."],
            "unclear": ["05/01/2021 or 05/11/2021"],
        },
    ),
    (
        {"query": "Date?", "references": ["05/01/2021"]},
        {"right": ["05/01/2021", "The date is 05/01/2021.", "**05/01/2021**"], "wrong": ["05/02/2021"]},
    ),
    (
        {"query": "What colour is the sky?\nA. red\nB. blue\nC. green\nD. black\nAnswer:", "references": ["B"]},
        {
            "right": [
                "B",
                "(B)",
                "B. blue",
                "blue",
                "The answer is B.",
                "The sky is blue. The answer is (B).",
                "**B. blue**",
                "B) blue",
                "Blue.",
                "The sky is blue.",
            ],
            "wrong": ["A", "C.", "red", "The answer is D.", "A. red", "The sky is green."],
            "unclear": ["A or B"],
        },
    ),
    (
        {"query": "Sort? A: x", "references": ["B"]},
        {"right": ["B", "(B)", "The answer is B.", "b"], "wrong": ["A", "C", "(A)", "The answer is C."]},
    ),
    (
        {"query": "Temperature?", "references": ["-5"]},
        {
            "right": [
                "-5",
                "minus 5",
                "-5 degrees",
                "The temperature is -5 °C.",
                "minus five",
                "It is minus 5 degrees.",
            ],
            "wrong": ["5", "5 degrees"],
        },
    ),
    (
        {"query": "True or false: whales are mammals.", "references": ["True"]},
        {
            "right": [
                "True",
                "Correct.",
                "That's correct.",
                "The statement is true.",
                "This is true.",
                "True. Whales nurse.",
                "**True.**",
                "It is true that whales are mammals.",
                'The statement "whales are mammals" is true.',
                "I would say true.",
                "Answer: True",
                "Yes",
            ],
            "wrong": [
                "False",
                "Incorrect",
                "The statement is not true.",
                "That is false.",
                "It's false.",
                "This statement is false because they live in water.",
            ],
            "unclear": ["It could be true or false."],
            "no_answer": ["To find the correct answer, look it up."],
        },
    ),
    (
        {
            "query": "Sort the following words alphabetically: List: fig kiwi plum apple",
            "references": ["apple fig kiwi plum"],
        },
        {
            "right": [
                "Here is the sorted list:\n\napple\nfig\nkiwi\nplum",
                "The words in alphabetical order are: apple, fig, kiwi, plum.",
                "apple fig kiwi plum",
                "First apple, then fig, then kiwi, and finally plum.",
                "1) apple 2) fig 3) kiwi 4) plum",
                "Sure! Here are the words in alphabetical order:\n\n1. Apple\n2. Fig\n3. Kiwi\n4. Plum\n\nLet "
                "me know if you need anything else!",
                "**Sorted list:** apple, fig, kiwi, plum",
                "<think>fig kiwi apple</think>apple fig kiwi plum",
                "Answer:\napple fig kiwi plum",
                '["apple", "fig", "kiwi", "plum"]',
                "apple | fig | kiwi | plum",
                "apple → fig → kiwi → plum",
                "fig kiwi plum apple sorted alphabetically is: apple fig kiwi plum",
                "The correct order is apple, fig, kiwi, plum.",
                "Step 1: Look at first letters: f, k, p, a.\nStep 2: a < f < k < p.\nSo the sorted list is: "
                "apple fig kiwi plum",
            ],
            "wrong": [
                "fig apple kiwi plum",
                "apple kiwi fig plum",
                "1. apple\n2. kiwi\n3. fig\n4. plum",
                "The sorted list is: fig, apple, kiwi, plum.",
                "apple fig kiwi",
                "apple, fig, kiwi, plum, plum",
                "apple fig fig kiwi plum",
                "apple, fig, kiwi, lemon, plum",
            ],
            "unclear": ["apple fig kiwi plum or fig apple kiwi plum"],
            "no_answer": ["", "I cannot sort words.", "What words?"],
        },
    ),
    (
        {"query": "What is the largest planet in the solar system?", "references": ["Jupiter"]},
        {
            "right": [
                "Jupiter",
                "The largest planet in the solar system is Jupiter.",
                "Jupiter is the largest planet in our solar system.",
                "It's Jupiter!",
                "**Jupiter**",
                "Jupiter.\n\nIt has 79 moons, more than Saturn.",
                "The largest planet is Jupiter, followed by Saturn.",
                "Answer: Jupiter",
                "The answer is: **Jupiter**.",
                "That would be Jupiter.",
                "Jupiter, of course.",
                "Jupiter is the largest.",
                "The planet Jupiter",
                "Jupiter (a gas giant)",
                "I believe it's Jupiter.",
                "The largest planet in the solar system is **Jupiter**, which has a diameter of 142,984 km.",
                "Saturn is big, but the largest planet is Jupiter.",
            ],
            "wrong": [
                "Saturn",
                "The largest planet in the solar system is Saturn.",
                "Saturn is the largest planet in our solar system.",
                "It's Saturn.",
                "**Saturn**",
                "The answer is Saturn.",
                "Answer: Earth",
                "Saturn, of course.",
            ],
            "unclear": [
                "Jupiter or Saturn",
                "The largest planet is not Jupiter.",
                "It isn't Jupiter.",
                "Possibly Jupiter",
            ],
            "no_answer": ["", "I don't know.", "Which system?"],
        },
    ),
    (
        {"query": "Who is the tallest?", "references": ["Amy"]},
        {
            "right": [
                "Amy",
                "Amy is the tallest.",
                "The tallest is Amy.",
                "Bob is shorter than Amy and Cy is shorter than Bob. Therefore, Amy is the tallest.",
                "So Amy is the tallest person.",
            ],
            "wrong": ["Bob", "Bob is the tallest.", "The tallest is Bob."],
            "unclear": ["Amy and Bob"],
        },
    ),
    (
        {"query": "Is it safe?", "references": ["No"]},
        {
            "right": [
                "No",
                "No, it's not safe.",
                "The answer is no.",
                "No. It is not safe at all.",
                "No – it would break.",
            ],
            "wrong": ["Yes", "Yes, it is safe.", "yes"],
            "unclear": ["Yes... wait, maybe not sure."],
            "no_answer": ["Safe for whom?"],
        },
    ),
    (
        {"query": "Is this plausible? Answer plausible or implausible.", "references": ["implausible"]},
        {
            "right": [
                "implausible",
                "Implausible.",
                "not plausible",
                "The sentence is implausible.",
                "It is not plausible.",
            ],
            "wrong": ["plausible", "The sentence is plausible."],
            "unclear": ["plausible or implausible"],
        },
    ),
    (
        {"query": "Is the following sentence plausible? yes or no", "references": ["no"]},
        {
            "right": [
                "no",
                "No.",
                "The sentence is not plausible.",
                "The sentence is implausible.",
                "So the answer is no.",
                "This is not plausible, since he plays soccer. So the answer is no.",
            ],
            "wrong": ["yes", "The sentence is plausible."],
        },
    ),
    (
        {"query": "What does it cost?", "references": ["$12.50"]},
        {
            "right": [
                "$12.50",
                "12.50",
                "12.5",
                "$12.5",
                "12.50 dollars",
                "The total cost is $12.50.",
                "It costs 12.50 USD.",
                "$10 + $2.50 = $12.50",
            ],
            "wrong": ["$12.05", "$125", "1250"],
            "unclear": ["12.50 euros", "1250 cents"],
        },
    ),
    (
        {"query": "x?", "references": ["0"]},
        {"right": ["0", "zero", "0.0", "The answer is 0.", "There are 0 left.", "\\boxed{0}"], "wrong": ["1"]},
    ),
    (
        {
            "query": "Sara has 12 eggs. She uses 4 for a cake and 3 for an omelette. How many eggs are left?",
            "references": ["5"],
        },
        {
            "right": [
                "Sara starts with 12 eggs. She uses 4 for the cake, leaving 12 - 4 = 8 eggs. Then she uses 3 "
                "for the omelette, leaving 8 - 3 = 5 eggs. So, Sara has 5 eggs left.",
                "12 - 4 - 3 = 5",
                "12-(4+3)=5",
                "To determine how many eggs Sara has left, we need to subtract the eggs she used from the "
                "total.\n\nTotal eggs: 12\nEggs used: 4 + 3 = 7\nEggs left: 12 - 7 = 5\n\nSara has **5** eggs left.",
                "Sara used 4 + 3 = 7 eggs in total, so 12 - 7 = 5 eggs are left.",
                "5 eggs are left.",
                "There are 5 eggs left.",
                "Sara has 5 eggs left.",
                "Sara has five eggs left.",
                "She has 5 eggs left after using 7.",
                "The number of eggs left is 5.",
                "Eggs left = 5",
                "**5 eggs**",
                "Let's solve this step-by-step:\n\n1. Sara has 12 eggs.\n2. She uses 4 eggs for a cake.\n3. She "
                "uses 3 eggs for an omelette.\n4. 12 - 4 = 8\n5. 8 - 3 = 5\n\nTherefore, there are 5 eggs left.",
                "Here's how to solve it:\n\n* **Start with:** 12 eggs\n* **Cake:** 12 - 4 = 8 eggs\n* "
                "**Omelette:** 8 - 3 = 5 eggs\n\n**Answer:** Sara has 5 eggs left.",
                "Here's the solution:\n* Total used: 4 + 3 = 7\n* Left: 12 - 7 = 5\nSo the answer is $\\boxed{5}$.",
                "Step 1: Add the eggs used: 4 + 3 = 7.\nStep 2: Subtract from 12: 12 - 7 = 5.\nAnswer: 5",
                "<think>12-4=8, 8-3=5</think>\n**Answer:** 5",
                "5. She had 12 and used 7.",
                "12 eggs - 7 eggs = 5 eggs",
                "The answer is 5 eggs.",
                "Sara has 12 - 4 - 3 = 5 eggs left.",
                "After the cake she has 8, and after the omelette she has 5.",
                "Sara has 12 eggs, uses 7, and is left with 5.",
                "If she uses 7 of the 12 eggs, 5 remain.",
                "She used 7 eggs. That leaves 5.",
                "It leaves 5 eggs.",
                "Remaining eggs: 5",
                "12 − 7 = 5.\n\nFinal answer: 5 eggs.",
                "Answer: 5 eggs\n\nExplanation: 12 - 4 - 3 = 5",
                "Ans: 5",
                "A: 5 eggs",
                "#### 5 eggs",
                "The answer is 5 ✅",
            ],
            "wrong": [
                "4",
                "There are 8 eggs left.",
                "12 - 4 = 8. So 8 eggs are left.",
                "Sara has 6 eggs left.",
                "12 - 7 = 6",
                "**8**",
                "The answer is 19.",
                "She has 12 + 4 + 3 = 19 eggs.",
                "Step 1: 12 - 4 = 8.\nStep 2: 8 - 3 = 4.\nAnswer: 4",
                "Therefore, there are 4 eggs left.",
            ],
            "unclear": [
                "5 or 6 eggs",
                "Either 5 or 8.",
                "It may be 5.",
                "5? Not sure.",
                "Sara has 12 eggs and 7 were used, 4 for the cake and 3 for the omelette.",
            ],
            "no_answer": ["", "Eggs are nice.", "I'm not sure.", "Can you repeat the question?", "<think>12 - 4 = 8"],
        },
    ),
    (
        {"query": "What is 15% of 200?", "references": ["30"]},
        {
            "right": [
                "30",
                "15% of 200 is 30.",
                "15% of 200 = 0.15 × 200 = 30",
                "0.15 * 200 = 30",
                "To find 15% of 200, multiply 200 by 0.15: 200 × 0.15 = 30.",
                "30.0",
                "The result is 30.",
                "15/100 × 200 = 30",
                "It equals 30.",
            ],
            "wrong": ["35", "15% of 200 is 3.", "20"],
        },
    ),
    (
        {"query": "How many hours from 9 to 17?", "references": ["8"]},
        {
            "right": [
                "8 hours",
                "From 9 to 17 there are 8 hours.",
                "17 - 9 = 8",
                "There are 8 hours between 9 and 17.",
                "Between 9 and 17 there are 8 hours.",
            ],
            "wrong": ["7 hours", "There are 7 hours between 9 and 17."],
        },
    ),
    (
        {
            "query": "Who is first?\nOptions:\n(A) Amy is first.\n(B) Bob is first.\n(C) Cy is first.",
            "options": ["Amy is first.", "Bob is first.", "Cy is first."],
            "references": ["(B)"],
        },
        {
            "right": [
                "B",
                "(B)",
                "Bob is first.",
                "The answer is (B) Bob is first.",
                "Amy comes after Bob, and Cy comes after Amy. So Bob is first.",
                "(B) Bob is first",
                "Since Amy is behind Bob and Cy is last, (B) is true.",
                "**(B) Bob is first.**",
                "(A) Amy is first. - This is false.\n(B) Bob is first. - This is true.\n(C) Cy is first. - This "
                "is false.",
                "Let's check each option:\n\n(A) Amy is first: Incorrect.\n(B) Bob is first: Correct.\n(C) Cy "
                "is first: Incorrect.",
                "The correct statement is: (B) Bob is first.",
                "So, the answer is B.",
                "Option (B) is correct: Bob is first.",
                "Thus, Bob is first.",
            ],
            "wrong": ["(C)", "Amy is first.", "So the answer is (A).", "Therefore Cy is first."],
            "unclear": ["(A) Amy is first.\n(B) Bob is first.\n(C) Cy is first."],
            "no_answer": ["Amy and Bob are first.", "Nobody knows."],
        },
    ),
    (
        {"query": "Is it a fish?\nOptions:\n(A) yes\n(B) no", "options": ["yes", "no"], "references": ["(B)", "no"]},
        {
            "right": [
                "no",
                "(B)",
                "B",
                "No, it is a whale.",
                "(B) no",
                "The answer is (B).",
                "It is not a fish, so no.",
                "b",
                "The answer is no.",
                "B. no",
                "Answer: B) no",
            ],
            "wrong": ["yes", "(A)", "A", "Yes, it is.", "(A) yes"],
            "unclear": ["yes or no", "(A) no"],
        },
    ),
]


@pytest.mark.parametrize(("prompt", "texts"), CASES)
def test_an_output_is_judged_as_a_reader_would(prompt, texts):
    reward, said = build_reward(AnswerReward()), {1.0: "right", 0.0: "wrong"}
    differing = {}
    for expected, outputs in texts.items():
        for output in outputs:
            judged = reward.verdict(output, row(**prompt))
            name = said.get(judged.score, judged.outcome).replace("not_judged", "unclear")
            if name != expected:
                differing[output] = (expected, name, judged.reason)
    assert differing == {}


def test_it_is_the_default():
    config = {"run": "r", "iterations": 1, "model": {"source": "m"}, "prompts": [{"path": "p.jsonl"}]}
    assert RunConfig.model_validate(config).reward == AnswerReward()


def test_the_answer_stands_after_the_last_marker():
    config = AnswerReward(marker="=>")
    texts = ["=> 7, no: => 8", "=> 8 apples for 3 people", "8", "=> 7"]
    assert [verdict(config, text, {"references": ["8"]})[0] for text in texts] == [1.0, 1.0, None, 0.0]
    assert verdict(config, "so => Paris", {"references": ["Paris"]})[0] == 1.0
    assert verdict(config, "no => yes", {"references": ["Yes"]})[0] == 1.0
    assert verdict(config, "b a => a b", {"references": ["a b c"], "query": "sort c b a"})[0] == 0.0


def test_references_of_several_kinds_are_all_accepted():
    prompt = row(query="How many legs?", references=["8", "eight legs", "as many as a spider"])
    texts = ["8", "eight", "as many as a spider", "seven"]
    assert [ANSWER.verdict(text, prompt).score for text in texts] == [1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({"references": [" "]}, "it has no reference"),
        (COLOURS | {"references": ["green"]}, "is one of its options"),
    ],
)
def test_prompts_without_a_usable_reference_stop_the_run(prompt, message):
    with pytest.raises(ConfigError, match=message):
        ANSWER.check_prompts(prompts(prompt))


def test_the_reason_tells_what_was_expected_or_not_understood():
    scored = ANSWER.score(samples("9", "7 or 8", "8 pens", ""), prompts({"references": ["8", "eight"]}))
    assert scored["reason"].to_list() == [
        "expected '8 or eight'",
        "several numbers: '7 or 8'",
        "equals '8 or eight'",
        "empty: ''",
    ]
    assert scored["outcome"].to_list() == ["scored", "not_judged", "scored", "no_answer"]


KINDS = {
    "option": row(**COLOURS),
    "number": row(query="How many? 3 or 4", references=["42"]),
    "truth": row(query="Is it?", references=["Yes"]),
    "list": row(query="Sort cat ant bee", references=["ant bee cat"]),
    "text": row(query="Which city?", references=["Paris"]),
    "formula": row(query="Simplify.", references=["2x + 3"]),
}
PIECES = [
    " ",
    "\n",
    "A",
    "1 ",
    "9 1/2 ",
    "**",
    "((1)",
    "\\boxed{1}",
    "\\frac{",
    "<think>",
    "<answer>",
    "#### 1\n",
    "½",
    "İ",
]
PIECES += [
    "the answer is 1. ",
    "answer: 1\n",
    "is correct ",
    "not A ",
    "not but ",
    "wait, 1. ",
    "(A) red\n",
    "ant\n",
    "x = 1 ",
]


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_kilobytes_of_anything_are_judged_at_once(kind, piece):
    """It takes at most 1 s; it would take minutes if the time grew with the square of the length."""
    started = time.process_time()
    ANSWER.verdict(piece * (10**5 // len(piece)), KINDS[kind])
    assert time.process_time() - started < 10
