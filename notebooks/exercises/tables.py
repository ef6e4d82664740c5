"""What was graded, as tables: a row for each student, a row for each test, and the exports."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pandas as pd
from submissions import mark, student_id

from derm_hash.errors import InputError
from derm_hash.files import write_atomically, write_text

STUDENTS = "students.csv"  # what `collect` has noted: student, id, name
UNANSWERED = ("NotImplementedError", "NameError")  # what tests say about an empty answer
BY_HAND = "by_hand.csv"  # the lecturer's own points; never overwritten, only added to


@dataclass
class Grade:
    """One assignment of one student: what each test said ('' = passed), None if not graded."""

    student: str
    assignment: str
    tests: dict[str, str] | None
    notes: list[str] = field(default_factory=list)
    missing: bool = False


def worth(notebook: nbformat.NotebookNode) -> tuple[dict[str, float], dict[str, float]]:
    """Points of each test, and of each answer that is graded by hand."""
    graded = [mark(cell) for cell in notebook.cells if mark(cell).get("grade")]
    return tuple(
        {about["grade_id"]: about["points"] for about in graded if bool(about["solution"]) == hand}
        for hand in (False, True)
    )


def points(grade: Grade, notebook: nbformat.NotebookNode) -> float:
    """The points of the tests that passed; nan if it was not graded."""
    tests, _ = worth(notebook)
    if grade.tests is None:
        return 0.0 if grade.missing else float("nan")
    return float(sum(value for name, value in tests.items() if grade.tests.get(name) == ""))


def show(grades: Iterable[Grade]) -> None:
    """Print the notes."""
    for grade in grades:
        for note in grade.notes:
            print(f"{grade.student}, {grade.assignment}: {note}")


def save(grades: list[Grade], sources: dict, submissions: Path, root: Path) -> list[Path]:
    """Write the tables and pages below ``root``; print the one of the students."""
    names = list(dict.fromkeys(grade.assignment for grade in grades))
    students = of_students(submissions, grades)
    hand = by_hand(grades, sources, root)
    wide = wide_table(grades, sources, names, students, hand)
    print(wide.drop(columns="note").to_string(index=False, na_rep="-", float_format="{:g}".format))
    tests = test_table(grades, sources, names)
    for row in tests.itertuples():
        if row.failed:
            print(f"{row.failed} of {row.of} fail {row.test} ({row.assignment}): {row.message}")
    frames = {"grades.csv": wide, "tests.csv": tests, BY_HAND: hand}
    frames |= {"moodle.csv": moodle(wide, names), "canvas.csv": canvas(wide, sources, names)}
    for name, frame in frames.items():
        write_csv(frame, root / name)
    feedback(grades, sources, hand, root / "feedback")
    return [root / name for name in frames] + [root / "by_hand", root / "feedback"]


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda part: frame.to_csv(part, index=False, float_format="%g"))


def of_students(submissions: Path, grades: Iterable[Grade]) -> pd.DataFrame:
    """student, id, name of everybody; what `collect` does not know is empty."""
    students = pd.DataFrame({"student": list(dict.fromkeys(grade.student for grade in grades))})
    path = submissions / STUDENTS
    if not path.is_file():
        return students.assign(id="", name=students["student"])
    known = pd.read_csv(path, dtype=str, keep_default_na=False)
    if not {"student", "id", "name"} <= set(known.columns):
        raise InputError(f"{path} lacks a column of student, id, name: collect again")
    return students.merge(known, on="student", how="left").fillna("")


def wide_table(grades, sources, names, students, hand) -> pd.DataFrame:
    """A row for each student: who, the points of each assignment, total, maximum, note."""
    of = {(grade.student, grade.assignment): grade for grade in grades}
    extra = hand.assign(points=pd.to_numeric(hand["points"], errors="coerce"))
    extra = extra.groupby(["student", "assignment"])["points"].sum()
    rows = []
    for student in students["student"]:
        own = [of[student, name] for name in names]
        scores = [points(g, sources[g.assignment]) for g in own]
        scores = [s + extra.get((student, n), 0) for s, n in zip(scores, names, strict=True)]
        notes = [f"{g.assignment}: {note}" for g in own for note in g.notes]
        if absent := [g.assignment for g in own if g.missing]:
            notes.append(f"not handed in: {', '.join(absent)}")
        rows.append([*scores, pd.Series(scores).sum(skipna=True), "; ".join(notes)])
    wide = pd.DataFrame(rows, columns=[*names, "total", "note"])
    maximum = sum(sum(part.values()) for name in names for part in worth(sources[name]))
    wide.insert(len(names) + 1, "maximum", maximum)
    return pd.concat([students, wide], axis=1)


def test_table(grades, sources, names) -> pd.DataFrame:
    """A row for each test: assignment, test, points, failed, of, and what it said most often."""
    rows = []
    for name in names:
        done = [g for g in grades if g.assignment == name and g.tests is not None]
        for test, value in worth(sources[name])[0].items():
            said = Counter(g.tests.get(test, "not run") for g in done)
            failed = len(done) - said.pop("", 0)
            message = next((m for m, _ in said.most_common() if not m.startswith(UNANSWERED)), "")
            message = re.sub(r"\s+", " ", message or "not answered") if said else ""
            rows.append((name, test, value, failed, len(done), message))
    columns = ["assignment", "test", "points", "failed", "of", "message"]
    return pd.DataFrame(rows, columns=columns)


def by_hand(grades, sources, root: Path) -> pd.DataFrame:
    """The table for the lecturer's points, with those that stand in it; pages with the answers.

    InputError where a number of points lies outside 0 and the maximum.
    """
    columns = ["student", "assignment", "question", "maximum", "points"]
    path, rows, pages = root / BY_HAND, [], {}
    old = pd.read_csv(path, dtype=str, keep_default_na=False) if path.is_file() else None
    given = {} if old is None else {tuple(r[:3]): r[4] for r in old[columns].values.tolist()}
    for grade in (grade for grade in grades if grade.tests is not None):
        for question, maximum in worth(sources[grade.assignment])[1].items():
            value = given.get((grade.student, grade.assignment, question), "")
            if value and not 0 <= number(value, path) <= maximum:
                raise InputError(
                    f"{path} gives {grade.student} {value} points for {question}: 0 to {maximum}"
                )
            rows.append((grade.student, grade.assignment, question, maximum, value))
            page = pages.setdefault(grade.assignment, [rubric(sources[grade.assignment])])
            page.append(f"## {grade.student}: {question}\n\n{answer(root, grade, question)}\n")
    for name, parts in pages.items():
        (root / "by_hand").mkdir(exist_ok=True)
        write_text(root / "by_hand" / f"{name}.md", "\n".join(parts))
    return pd.DataFrame(rows, columns=columns)


def number(text: str, path: Path) -> float:
    """A number of points, or InputError."""
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{path} has {text!r} for points: write a number") from None


def rubric(notebook: nbformat.NotebookNode) -> str:
    """The rubrics of an assignment: what its questions by hand hold for the lecturer alone."""
    texts = [c.source for c in notebook.cells if mark(c).get("grade") and mark(c).get("solution")]
    return "# Rubric\n\n" + "\n\n".join(texts) + "\n"


def answer(root: Path, grade: Grade, question: str) -> str:
    """What a student has written."""
    path = root / "graded" / student_id(grade.student) / f"{grade.assignment}.ipynb"
    cells = nbformat.read(path, as_version=4).cells
    return next(cell.source for cell in cells if mark(cell).get("grade_id") == question)


def moodle(wide: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """The columns by which Moodle knows its participants, and a column for each assignment."""
    who = pd.DataFrame({"Identifier": "Participant " + wide["id"], "Full name": wide["name"]})
    return pd.concat([who, wide[names]], axis=1)


def canvas(wide: pd.DataFrame, sources: dict, names: list[str]) -> pd.DataFrame:
    """Canvas's gradebook: a row of the points possible, then the students."""
    who = pd.DataFrame({"Student": wide["name"], "ID": wide["id"], "Section": ""})
    possible = {name: sum(sum(part.values()) for part in worth(sources[name])) for name in names}
    first = pd.DataFrame([{"Student": "Points Possible", "ID": "", "Section": ""} | possible])
    return pd.concat([first, pd.concat([who, wide[names]], axis=1)], ignore_index=True)


def feedback(grades: list[Grade], sources: dict, hand: pd.DataFrame, folder: Path) -> None:
    """A page for each student that may be given back: no hidden test stands in it."""
    folder.mkdir(parents=True, exist_ok=True)
    given = {tuple(row[:3]): row[4] for row in hand.values.tolist()}
    pages = {}
    for grade in (grade for grade in grades if not grade.missing):
        tests, questions = worth(sources[grade.assignment])
        got = points(grade, sources[grade.assignment])
        lines = [f"## {grade.assignment}: {got:g} of {sum(tests.values()):g}", "", *grade.notes, ""]
        for test, value in tests.items() if grade.tests is not None else ():
            said = re.sub(r"\s+", " ", grade.tests.get(test, "not run"))
            title = test.removeprefix("test_").replace("_", " ")
            lines.append(f"- {0 if said else value} of {value}: {title}. {said}".rstrip())
        for question, maximum in questions.items():
            value = given.get((grade.student, grade.assignment, question)) or "-"
            lines.append(f"- {value} of {maximum}: {question.replace('_', ' ')} (by hand)")
        pages.setdefault(grade.student, []).append("\n".join(lines) + "\n")
    for student, parts in pages.items():
        write_text(folder / f"{student_id(student)}.md", "\n".join(parts))
