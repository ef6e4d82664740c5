"""The exercises: are they sound, can they be solved, and do they catch what students get wrong?"""

import ast
import re
import subprocess
import sys

import nbformat
import pytest
from nbgrader.nbgraderformat import MetadataValidator
from nbgrader.preprocessors import ClearSolutions

from tests.exercises.notebooks import EXERCISES, code_cells, failures, mark, points, read

each = pytest.mark.parametrize("path", EXERCISES, ids=lambda path: path.stem)


def names(source):
    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}


# --- the files --------------------------------------------------------------------------


def test_there_is_one_for_each_skill():
    assert [path.stem for path in EXERCISES] == [
        "02_attention_gate",
        "03_hamming_search",
        "04_rotation_loss",
        "06_retrieval_scores",
    ]


@each
def test_it_is_a_valid_notebook_without_outputs(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert [c.id for c in code_cells(notebook) if c.outputs or c.execution_count] == []


@each
def test_nbgrader_accepts_its_metadata(path):
    MetadataValidator().validate_nb(read(path))
    for cell in code_cells(read(path)):
        assert mark(cell).get("schema_version", 3) == 3
        assert mark(cell).get("locked", False) == bool(mark(cell)) - mark(cell).get("solution", 0)


@each
def test_it_opens_with_what_one_practises_the_time_and_the_points(path):
    opening = read(path).cells[0].source
    assert opening.startswith("# Exercises ") and "practise" in opening
    assert re.search(r"\d+ minutes", opening)
    total = points(read(path))
    assert f"**Points**: {total}." in opening
    headings = re.findall(r"^## Exercise \d: .*\((\d) points\)$", prose(path), re.MULTILINE)
    assert sum(map(int, headings)) == total


def prose(path):
    return "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


@each
def test_the_rules_are_the_same_everywhere(path):
    first = read(EXERCISES[0]).cells[0].source.partition("**How it works.**")[2]
    assert first and first == read(path).cells[0].source.partition("**How it works.**")[2]


@each
def test_code_cells_are_clean(path):
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--quiet", str(path)]
        done = subprocess.run(ruff, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@each
def test_every_solution_is_marked_and_stands_alone(path):
    """A slip in one exercise must not cost the points of another."""
    solutions = code_cells(read(path), "solution")
    defined = [ast.parse(cell.source).body[0].name for cell in solutions]
    for cell, name in zip(solutions, defined, strict=True):
        assert cell.source.count("### BEGIN SOLUTION") == cell.source.count("### END SOLUTION") > 0
        assert names(cell.source) & set(defined) - {name} == set()


@each
def test_every_test_says_what_it_tests_and_has_a_hidden_part(path):
    for cell in code_cells(read(path), "grade"):
        title = cell.source.splitlines()[0].removeprefix("# ")
        assert re.sub(r"\W+", "_", f"test {title.lower()}").strip("_") == mark(cell)["grade_id"]
        assert cell.source.count("### BEGIN HIDDEN TESTS") == 1
        shown, _, rest = cell.source.partition("### BEGIN HIDDEN TESTS")
        assert re.search(r"^(assert |compare_\w+\()", shown, re.MULTILINE)
        assert rest.count("### END HIDDEN TESTS") == 1


@each
def test_what_a_test_leaves_behind_hides_nothing(path):
    """Tests run in the open, so that their names must not be those of functions or modules."""
    namespace, notebook = {}, read(path)
    for cell in code_cells(notebook):
        before = {name: value for name, value in namespace.items() if callable(value)}
        exec(compile(cell.source, cell.id, "exec"), namespace)
        if mark(cell).get("grade"):
            assert {name: namespace[name] for name in before} == before


# --- what they are worth ----------------------------------------------------------------


@each
def test_the_solutions_score_all_points(path):
    assert failures(read(path)) == {}


@each
def test_an_empty_notebook_scores_0_and_runs_to_its_end(path):
    notebook = read(path)
    ClearSolutions().preprocess(notebook, {})
    lost = failures(notebook)
    assert points(notebook, lost) == 0
    others = lost.keys() - {mark(cell)["grade_id"] for cell in code_cells(notebook, "grade")}
    assert all(name.startswith("see-it") for name in others)
    assert all(isinstance(error, NotImplementedError) for error in lost.values())


@each
def test_what_students_see_tests_something(path):
    """The shown part of every test fails on an empty notebook too, and passes on a solution."""
    notebook = read(path)
    for cell in code_cells(notebook, "grade"):
        hidden = r" *### BEGIN HIDDEN TESTS.*?### END HIDDEN TESTS\n?"
        cell.source = re.sub(hidden, "", cell.source, flags=re.DOTALL)
    assert failures(notebook) == {}
    ClearSolutions().preprocess(notebook, {})
    assert points(notebook, failures(notebook)) == 0


GATE, SEARCH, LOSS, SCORES = EXERCISES
# Exercise and cell -> what is wrong, what stands in the solution, what a student writes, and the
# tests that are lost (without "test_").
WRONG = {
    (GATE, "pool_channels"): [
        ("pools over an axis of the image", "dim=1, keepdim", "dim=3, keepdim",
         "the_mean_runs_over_the_channels the_second_map_is_the_maximum"),
        ("height and width transposed", "torch.cat([mean, peak], dim=1)",
         "torch.cat([mean, peak], dim=1).transpose(2, 3)",
         "the_mean_runs_over_the_channels the_second_map_is_the_maximum"),
        ("mean instead of maximum", "x.amax(", "x.mean(", "the_second_map_is_the_maximum"),
        ("maximum from zero", "x.amax(", "x.relu().amax(", "the_second_map_is_the_maximum"),
    ],
    (GATE, "positions_seen"): [
        ("counts the holes", "len(reached) ** 2", "(2 * sum(dilations) + 1) ** 2",
         "holes_do_not_count"),
        ("counts along one axis", "len(reached) ** 2", "len(reached)",
         "a_window_without_holes holes_do_not_count"),
    ],
    (GATE, "gate"): [
        ("mean instead of maximum in the gate", "x.amax(", "x.mean(", "the_gate_is_that_of_hdcsa"),
        ("no sigmoid", "torch.sigmoid(", "(",
         "one_gate_for_each_position the_gate_is_that_of_hdcsa"),
        ("all dilations 1", "few, 3, d)", "few, 3, 1)", "the_gate_is_that_of_hdcsa"),
        ("maps in another order", "[mean, peak, self.context(x)]", "[self.context(x), mean, peak]",
         "the_gate_is_that_of_hdcsa"),
        ("a bias too many", ", bias=False", "",
         "the_gate_is_that_of_hdcsa the_parameters_are_those_of_hdcsa"),
        ("no padding", ", padding=kernel_size // 2", "",
         "one_gate_for_each_position the_gate_is_that_of_hdcsa"),
    ],
    (GATE, "gated_block"): [
        ("gates the shortcut", "attention(found) * found + x", "attention(found) * (found + x)",
         "the_shortcut_is_not_gated"),
        ("gate from the input", "attention(found)", "attention(x)", "the_gate_looks_at_the_branch"),
        ("runs the branch twice", "* found", "* branch(x)", "the_gate_looks_at_the_branch"),
    ],
    (SEARCH, "pack"): [
        (">= instead of >", "> 0.5", ">= 0.5", "one_half_is_a_zero"),
        ("all codes in one row of bytes", ", axis=1", "", "every_code_has_its_own_bytes"),
        ("last bit first", ", axis=1", ", axis=1, bitorder='little'",
         "every_code_has_its_own_bytes one_half_is_a_zero"),
    ],
    (SEARCH, "hamming"): [
        ("counts bytes", "POPCOUNT[queries[:, None] ^ database[None, :]]",
         "(queries[:, None] != database[None, :])",
         "all_distances_are_those_of_faiss bits_are_counted_not_bytes"),
        ("distances transposed", ".sum(axis=2)", ".sum(axis=2).T",
         "all_distances_are_those_of_faiss queries_are_the_rows"),
        ("a sum that fits into a byte", ".sum(axis=2)", ".sum(axis=2, dtype=np.uint8)",
         "bits_are_counted_not_bytes"),
    ],
    (SEARCH, "nearest"): [
        ("unstable ties", ', kind="stable"', "", "ties_keep_the_order_of_the_database"),
        ("farthest first", "np.argsort(distances", "np.argsort(-distances",
         "the_nearest_come_first ties_keep_the_order_of_the_database"),
    ],
    (SEARCH, "search"): [
        ("the radius left out", "<= radius", "< radius",
         "the_hits_are_those_of_the_package the_radius_comes_before_the_ranking "
         "the_radius_itself_belongs_to_the_ball"),
        ("farthest of the near ones", "1 - cosine, kind", "cosine, kind",
         "the_hits_are_those_of_the_package the_radius_comes_before_the_ranking"),
        ("ranks before it looks at the radius", "    coarse = np.flatnonzero(different <= radius)",
         "    norms = np.linalg.norm(database, axis=1)\n"
         "    coarse = np.argsort(-(database @ query) / norms, kind='stable')[:k]\n"
         "    coarse = coarse[different[coarse] <= radius]",
         "the_hits_are_those_of_the_package the_radius_comes_before_the_ranking"),
        ("positions within the ball", 'coarse[np.argsort(1 - cosine, kind="stable")[:k]]',
         "np.argsort(1 - cosine, kind='stable')[:k]",
         "the_hits_are_those_of_the_package the_radius_comes_before_the_ranking"),
    ],
    (LOSS, "disagreement"): [
        ("forgotten absolute value", ".abs()", "", "a_distance_has_no_sign"),
        ("mean over the images", "dim=0", "dim=1, keepdim=True", "the_mean_is_over_the_copies"),
        ("mean over the bits", "codes.mean(dim=0)", "codes.mean(dim=2, keepdim=True)",
         "the_mean_is_over_the_copies"),
    ],
    (LOSS, "rotation_loss"): [
        ("forgotten absolute value in the loss", ".abs()", "",
         "images_and_bits_are_averaged one_bit_by_hand the_loss_is_that_of_the_package"),
        ("mean over everything", ".mean(dim=(1, 2)).sum()", ".mean()",
         "one_bit_by_hand the_loss_is_that_of_the_package"),
        ("sum over everything", ".mean(dim=(1, 2)).sum()", ".sum()",
         "images_and_bits_are_averaged the_loss_is_that_of_the_package"),
        ("gamma ignored", "/ gamma", "/ 0.5", "one_bit_by_hand the_loss_is_that_of_the_package"),
    ],
    (LOSS, "rotation_gradient"): [
        ("sign error in the gradient", "return (pull - pull.mean(dim=0))",
         "return (pull.mean(dim=0) - pull)",
         "a_step_against_the_gradient_lowers_the_loss the_gradient_is_that_of_autograd"),
        ("the mean held fixed", "(pull - pull.mean(dim=0))", "pull",
         "the_gradient_is_that_of_autograd the_mean_stays_where_it_is"),
        ("gradient not averaged", " / codes[0].numel()", "", "the_gradient_is_that_of_autograd"),
    ],
    (LOSS, "flipped_bits"): [
        ("copy 0 counted", "bits[1:] != bits[0]", "bits != bits[0]", "copy_0_is_not_counted"),
        ("soft codes compared", "bits = codes > 0.5", "bits = codes",
         "bits_are_compared_not_soft_codes copy_0_is_not_counted"),
        (">= instead of > for the bits that flip", "> 0.5", ">= 0.5",
         "bits_are_compared_not_soft_codes"),
    ],
    (SCORES, "precision_at_k"): [
        ("off by one in precision@k", "relevant[:, :k].mean", "relevant[:, : k + 1].mean",
         "ranks_1_to_k_count_and_no_others the_share_is_of_k"),
        ("off by one the other way", ":k].mean(axis=1)", ": k - 1].sum(axis=1) / k",
         "ranks_1_to_k_count_and_no_others the_share_is_of_k"),
        ("recall", "relevant[:, :k].mean(axis=1)",
         "relevant[:, :k].sum(axis=1) / np.maximum(relevant.sum(axis=1), 1)",
         "the_share_is_of_k"),
        ("precision of the queries", "[:, :k].mean(axis=1)", "[:k].mean(axis=0)",
         "ranks_1_to_k_count_and_no_others the_share_is_of_k"),
    ],
    (SCORES, "average_precision"): [
        ("ranks from 0", "right / rank", "right / (rank + 1)",
         "average_precision_is_that_of_scikit_learn two_rankings_by_hand"),
        ("divided by the length of the list", "max(right, 1)", "len(relevant)",
         "average_precision_is_that_of_scikit_learn two_rankings_by_hand"),
        ("divided by nothing", "max(right, 1)", "right", "nothing_relevant_is_worth_0"),
    ],
    (SCORES, "paper_score"): [
        ("divided by k", "np.maximum(returned, 1)", "hits.shape[1]",
         "the_score_is_that_of_the_package the_share_is_of_the_hits_returned"),
        ("mean over the queries",
         "np.mean([of_query[labels == c].mean() for c in np.unique(labels)])", "of_query.mean()",
         "every_class_weighs_the_same the_score_is_that_of_the_package"),
    ],
    (SCORES, "query_mask"): [
        ("leakage: a split by image", "    return np.isin(lesion_ids, drawn)",
         "    n = len(lesion_ids)\n"
         "    return np.random.default_rng(seed).permutation(n) < round(share * n)",
         "no_lesion_is_on_both_sides"),
        ("a seed that is ignored", "default_rng(seed)", "default_rng(0)",
         "the_share_and_the_seed_are_obeyed"),
        ("a split that is not repeatable", "default_rng(seed)", "default_rng()",
         "the_share_and_the_seed_are_obeyed"),
    ],
    (SCORES, "leaked_share"): [
        ("lesions counted, not images", "lesion_ids[query],", "np.unique(lesion_ids[query]),",
         "query_images_are_counted"),
        ("the queries that do not leak", ".mean()", ".mean() * -1 + 1",
         "a_clean_and_a_leaking_split query_images_are_counted"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "cell_name", "right", "wrong", "expected"),
    [
        pytest.param(*where, right, wrong, {f"test_{test}" for test in lost.split()}, id=name)
        for where, rows in WRONG.items()
        for name, right, wrong, lost in rows
    ],
)
def test_a_typical_wrong_answer_loses_its_points_and_no_others(
    path, cell_name, right, wrong, expected
):
    notebook = read(path)
    notebook.cells = [c for c in notebook.cells if not c.id.startswith("see-it")]
    (cell,) = (c for c in code_cells(notebook) if mark(c).get("grade_id") == cell_name)
    assert right in cell.source
    cell.source = cell.source.replace(right, wrong)
    lost = failures(notebook)
    assert lost.keys() == expected
    assert points(notebook) > points(notebook, lost) > 0


def test_every_test_of_every_exercise_catches_something():
    tests = {mark(c)["grade_id"] for path in EXERCISES for c in code_cells(read(path), "grade")}
    lost = " ".join(lost for rows in WRONG.values() for *_, lost in rows)
    assert tests == {f"test_{test}" for test in lost.split()}
