"""Another set of the exercises for an examination, from a seed that the lecturer chooses.

A task has *knobs*: rules that could as well be otherwise. Each is a list of replacements that turn
the text, the solution and the tests together. Every examination turns at least half of them.
"""

import copy
import random
import re

import nbformat

Knob = list[tuple[str, str]]  # what stands in the notebook, what stands there instead

KNOBS: dict[str, dict[str, Knob]] = {
    "02_attention_gate": {
        "minimum": [
            ("the **maximum**, and the **range**, which", "first the **range**, then the **maximum**; the range"),
            ("first the maximum, then the range", "first the range, then the maximum"),
            ("[peak, peak - x.amin(dim=1, keepdim=True)]", "[peak - x.amin(dim=1, keepdim=True), peak]"),
            ("# The first map is the maximum", "# The second map is the maximum"),
            ("# The second map is the range", "# The first map is the range"),
            ("show in the first map", "show in the second map"),
            ("maps[0, 0, 2, 3]", "maps[0, 1, 2, 3]"),
            ("pool_channels(x)[:, 0], x.sort", "pool_channels(x)[:, 1], x.sort"),
            ("pool_channels(x)[0, 1, 0, 0]", "pool_channels(x)[0, 0, 0, 0]"),
            ("pool_channels(ordered)[:, 1]", "pool_channels(ordered)[:, 0]"),
            ("pool_channels(ordered - 9)[:, 1]", "pool_channels(ordered - 9)[:, 0]"),
            ("pool_channels(x)[1, 0, 3, 2]", "pool_channels(x)[1, 1, 3, 2]"),
            ("pool_channels(waves(2, 1, 3, 3))[:, 1]", "pool_channels(waves(2, 1, 3, 3))[:, 0]"),
        ],
        "window": [
            ("23×23", "25×25"),
            ("23 wide", "25 wide"),
            ("return 1, 3, 7", "return 1, 3, 8"),
            ("+ 1, 23,", "+ 1, 25,"),
            ("my_dilations())), 23,", "my_dilations())), 25,"),
        ],
        "residual gate": [
            ("\\Big(1+A\\big(\\mathcal F(x)\\big)\\Big)", "\\Big(2-A\\big(\\mathcal F(x)\\big)\\Big)"),
            ("only turns it up", "weakens it where the gate is high"),
            ("(1 + attention(found)) * found", "(2 - attention(found)) * found"),
            ("check(shut, 4 * x,", "check(shut, 7 * x,"),
            ("with the gate at 0, the branch", "with the gate at 0, twice the branch"),
        ],
    },
    "03_hamming_search": {
        "one half": [
            ("where $h>\\tfrac12$ and 0 otherwise, so it is 0 *at* one half", "where $h\\ge\\tfrac12$ and 0 otherwise, so it is 1 *at* one half"),
            ("bits = soft > 0.5", "bits = soft >= 0.5"),
            ("# One half is a zero", "# One half is a one"),
            ("[[0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.51]]", "[[0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.5]]"),
            ("the last bit alone is above one half", "the last bit alone is at one half"),
            ('"1" if value > 0.5', '"1" if value >= 0.5'),
        ],
        "order of ties": [
            ("**the one that was added last**: the one with the *larger* position", "**the one that was added first**: the one with the *smaller* position"),
            ("last - np.argsort(distances[:, ::-1], axis=1,", "np.argsort(distances, axis=1,"),
            ("    last = distances.shape[1] - 1\n", ""),
            ("was added last comes first", "was added first comes first"),
            ("[[4, 2, 1, 3]]", "[[1, 2, 4, 0]]"),
            ("positions 4, 2 and 1", "positions 1, 2 and 4"),
            ("(row[i], -i)", "(row[i], i)"),
        ],
        "radius": [
            ("at a distance of *at most* $r$ bits", "at a distance of *less than* $r$ bits"),
            ("different <= radius", "different < radius"),
            ("# The radius itself belongs to the ball", "# The radius itself does not belong to the ball"),
            ("k=3, radius=2)), [0, 1], \"at most 2 bits away\"", "k=3, radius=3)), [0, 1], \"less than 3 bits away\""),
            ("k=3, radius=0)), [0], \"not a bit away\"", "k=3, radius=1)), [0], \"not a bit away\""),
            ("k=3, radius=3)), [0, 1, 2], \"at most 3 bits away\"", "k=3, radius=4)), [0, 1, 2], \"less than 4 bits away\""),
            ("k=2, radius=8)", "k=2, radius=9)"),
            ("within radius 8", "within radius 9"),
            ("k=1, radius=0)", "k=1, radius=1)"),
            ("k=2, radius=3)", "k=2, radius=4)"),
            ("np.array([[0.9, 0.9], [0.6, 0.7]]), radius=0)", "np.array([[0.9, 0.9], [0.6, 0.7]]), radius=1)"),
            ("differ <= radius", "differ < radius"),
            ("k=4, radius=0)", "k=4, radius=1)"),
            ("k=8, radius=0)", "k=8, radius=1)"),
        ],
    },
    "04_rotation_loss": {
        "cost": [
            ("\\log\\!\\Big(1+\\frac{\\lvert u_{k,i,j}-u_{l,i,j}\\rvert}{\\gamma}\\Big)", "\\gamma\\log\\!\\Big(1+\\frac{\\lvert u_{k,i,j}-u_{l,i,j}\\rvert}{\\gamma}\\Big)"),
            ("return torch.log(1 + (codes[first] - codes[second]).abs() / gamma).mean()", "return gamma * torch.log(1 + (codes[first] - codes[second]).abs() / gamma).mean()"),
            ("return pull * 2 / (n", "return gamma * pull * 2 / (n"),
            ("np.log(1.8),", "0.5 * np.log(1.8),"),
            ("np.log(3),", "0.2 * np.log(3),"),
            ("log(1 + 0.4 / 0.5)", "0.5 log(1 + 0.4 / 0.5)"),
            ("log(1 + 0.4 / 0.2)", "0.2 log(1 + 0.4 / 0.2)"),
            ("np.log(1.8) * 2 / 3", "np.log(1.8) / 3"),
            ("np.log(2) / 2", "np.log(2) / 4"),
            ("np.log1p(abs(one", "gamma * np.log1p(abs(one"),
            ("return torch.log1p(apart / gamma).sum()", "return gamma * torch.log1p(apart / gamma).sum()"),
        ],
        "one half": [
            ("1 where $u>\\tfrac12$ (at one half: 0)", "1 where $u\\ge\\tfrac12$"),
            ("bits, n = codes > 0.5", "bits, n = codes >= 0.5"),
            ("[[0.4], [0.5], [0.1]]", "[[0.6], [0.5], [0.9]]"),
            ("one half is a 0, as everywhere in the course", "one half is a 1"),
        ],
    },
    "05_training_faults": {
        "earlier or later": [
            ("on a tie, the **earlier** one is kept", "on a tie, the **later** one is kept"),
            ("# On a tie the earlier epoch", "# On a tie the later epoch"),
            ("tale([0.2, 0.6, 0.6])[0][0], 1,", "tale([0.2, 0.6, 0.6])[0][0], 2,"),
            ("found > best:\n            best, chosen", "found >= best:\n            best, chosen"),
            ("tale([0.3, 0.7, 0.7, 0.2])[0][0], 1, \"of equal epochs, the earlier one\"", "tale([0.3, 0.7, 0.7, 0.2])[0][0], 2, \"of equal epochs, the later one\""),
            ("check(tale([0.0, 0.0])[0], (0, 0.5)", "check(tale([0.0, 0.0])[0], (1, 0.5)"),
        ],
        "scale of weights": [
            ("have a mean weight of 1;", "have weights that add up to 1;"),
            ("weights / weights.sum() * (counts > 0).sum()", "weights / weights.sum()"),
            ("[0.5, 1.5]", "[0.25, 0.75]"),
            ("inverse / inverse.mean()", "inverse / inverse.sum()"),
            ("[1.5, 0.0, 0.5]", "[0.75, 0.0, 0.25]"),
        ],
    },
    "06_retrieval_scores": {
        "rank": [
            ("the score of a query is $1/r$", "the score of a query is $1/r^2$"),
            ("1 / (right.argmax(axis=1) + 1)", "1 / (right.argmax(axis=1) + 1) ** 2"),
            ("np.array([0])), 0.5, \"the first", "np.array([0])), 0.25, \"the first"),
            ("np.array([3])), 0.25,", "np.array([3])), 0.0625,"),
            ("found, 0.25, \"class 0", "found, 0.125, \"class 0"),
            ("class 1 one half", "class 1 a quarter"),
            ("0.375", "0.3125"),
        ],
        "rounding": [
            ("`round(L * share)` become", "`L * share`, rounded **up**, become"),
            ("n = round(len(lesions) * share)", "n = int(np.ceil(len(lesions) * share))"),
            ("13 * 0.2 = 2.6 is rounded to 3", "13 * 0.2 = 2.6 is rounded up to 3"),
            ("sizes(lesions, 0.1, seed)", "sizes(lesions, 0.09, seed)"),
            ("check(found, [2, 2, 8], \"lesions in query, val, database: 12 * 0.2 = 2.4 is rounded to 2\")", "check(found, [3, 3, 6], \"lesions in query, val, database: 12 * 0.2 = 2.4 is rounded up to 3\")"),
        ],
    },
    "07_saliency_audit": {
        "sign": [
            ("the score before minus the score after", "the score after minus the score before: a drop is negative"),
            ("return model(images) - model(painted)\n    ###", "return model(painted) - model(images)\n    ###"),
            ("check(found, [0.6, 0.0]", "check(found, [-0.6, 0.0]"),
            ("check(found, [-0.3, -0.4]", "check(found, [0.3, 0.4]"),
            ("with weight 3", "with weight 3: -0.6"),
            ("the drop is negative", "the score rises"),
        ],
        "outside": [
            ("that lies inside a mask", "that lies **outside** a mask"),
            ("inside = (maps * masks)", "inside = (maps * ~masks)"),
            ("[0.25, 1.0], \"1 of 4 inside, and all\"", "[0.75, 0.0], \"3 of 4 outside, and none\""),
            ("m[k].sum() / m.sum()", "m[~k].sum() / m.sum()"),
            ("[0.0, 1.0], \"a map of zeros", "[0.0, 0.0], \"a map of zeros"),
            ("[0.0, 0.0], \"empty masks\"", "[0.0, 1.0], \"empty masks\""),
            ("how much lies inside?", "how much lies outside?"),
        ],
    },
    "08_statistics": {
        "quantiles": [
            ("the 2.5 % and the 97.5 % quantile", "the 5 % and the 95 % quantile"),
            ("[0.025, 0.975]", "[0.05, 0.95]"),
            ("2 * 1.96 *", "2 * 1.645 *"),
            ("30 / 31,", "30 / 32,"),
            ("1.35 * (", "1.3 * ("),
        ],
        "one-sided": [
            ("The **two-sided p-value** is the share", "The **one-sided p-value** is the share"),
            ("whose mean is at least as far from 0", "whose mean is at least as large"),
            ("np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12", "signs @ differences >= differences.sum() - 1e-12"),
            ("found, 2 / 32, why", "found, 1 / 32, why"),
            ("all 5 of one sign: 2 of 32 patterns, so p < 0.05 cannot be reached", "all 5 of one sign: 1 of 32 patterns"),
            ("1.0, \"one seed proves nothing\"", "0.5, \"one seed proves nothing\""),
            ("2 / 32, \"all negative: two-sided\"", "1.0, \"all negative\""),
            ("2 / 256", "1 / 256"),
            ("np.array([0.3, -0.1])), 1.0", "np.array([0.3, -0.1])), 0.5"),
            ("|0.2|, |0.4|, |-0.4|, |-0.2| are all at least 0.2", "of 0.2, 0.4, -0.4, -0.2 two are at least 0.2"),
            ("0.5, \"sums 4, 6, 0, 2 and their negatives: half reach 4\"", "0.25, \"sums 4, 6, 0, 2 and their negatives: two of eight reach 4\""),
            ("0.75, \"ties: 12 of 16 patterns reach 0.3 up to rounding\"", "0.375, \"ties: 6 of 16 patterns reach 0.3 up to rounding\""),
            ("1.0, \"the sum is 0 up to rounding, and so all 8 patterns reach it\"", "5 / 8, \"the sum is 0 up to rounding, and 5 of 8 patterns reach it\""),
            ("# Five seeds of one sign reach a sixteenth", "# Five seeds of one sign reach a thirty-second"),
        ],
    },
}  # fmt: skip


def examination(name: str, notebook: nbformat.NotebookNode, seed: int) -> nbformat.NotebookNode:
    """The notebook with at least half of its knobs turned."""
    chance, knobs = random.Random(f"{seed} {name}"), KNOBS.get(name, {})
    chosen = chance.sample(sorted(knobs), chance.randint((len(knobs) + 1) // 2, len(knobs)))
    notebook = copy.deepcopy(notebook)
    for knob in chosen:
        turn(notebook, knobs[knob])
    opening = notebook.cells[0]
    opening.source = opening.source.replace("# Exercises ", "# Examination ", 1)
    return notebook


def turn(notebook: nbformat.NotebookNode, knob: Knob) -> None:
    """Make the replacements of a knob in all cells; each has to be found somewhere."""
    for old, new in knob:
        if not any(old in cell.source for cell in notebook.cells):
            raise ValueError(f"no cell has {old!r}: the knob is out of date")
        for cell in notebook.cells:
            cell.source = cell.source.replace(old, new)
            about = cell.metadata.get("nbgrader", {})
            if about.get("grade") and not about["solution"]:
                title = cell.source.splitlines()[0].removeprefix("# ").lower()
                about["grade_id"] = re.sub(r"\W+", "_", f"test {title}").strip("_")
