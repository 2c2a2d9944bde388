"""The declared formula, by reading where that is enough and by algebra within hard limits where it is not.

All tests share the one algebra process that the reward starts, as a Lambda would.
"""

import signal
import threading
from pathlib import Path

import pytest

from lambdas.algebra import Algebra
from lambdas.contract import InfrastructureError, Sample, UnscorableError, reward_handler
from lambdas.rewards import math_answer
from lambdas.rewards.math_answer import MathAnswer


def reward(completion, reference, task="?", **parameters):
    messages = ({"role": "user", "content": task},)
    sample = Sample("a", messages, completion, reference_answer=reference)
    return MathAnswer(**parameters).score(sample)


def boxed(answer, reference, task="?", **parameters):
    return reward(rf"It follows that \boxed{{{answer}}}.", reference, task, **parameters)


# form, completion, reference, score
FORMS = [
    ("boxed", r"so $\boxed{\sqrt{8}}$.", r"2\sqrt{2}", 1.0),
    ("boxed", r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{\sqrt{2}}{2}", 1.0),
    ("boxed", r"\boxed{\boxed{5}}", "5", 1.0),
    ("boxed", r"\boxed{\sqrt{8}", r"2\sqrt{2}", 0.0),
    ("boxed", r"\boxed{}", "5", 0.0),
    ("boxed", r"\sqrt{8}", r"2\sqrt{2}", 0.0),
    ("boxed", "", r"2\sqrt{2}", 0.0),
    ("hashes", "so\n#### $\\sqrt{8}$", r"2\sqrt{2}", 1.0),
    ("tag", r"<answer>\(\sqrt{8}\)</answer>", r"2\sqrt{2}", 1.0),
    ("tag", r"<answer>\sqrt{8}", r"2\sqrt{2}", 0.0),
    ("label", "**Answer:** $\\sqrt{8}$.", r"2\sqrt{2}", 1.0),
    ("label", r"The answer is \sqrt{8}", r"2\sqrt{2}", 0.0),
    ("json", r'{"answer": "\\sqrt{8}"}', r"2\sqrt{2}", 1.0),
    ("json", '{"answer": 5}', "5", 1.0),
    ("json", r"\sqrt{8}", r"2\sqrt{2}", 0.0),
    ("last_line", "so\n\\[\\sqrt{8}\\]\n", r"2\sqrt{2}", 1.0),
    ("last_line", r"it is \sqrt{8}", r"2\sqrt{2}", 0.0),
    ("whole", r"$\sqrt{8}$", r"2\sqrt{2}", 1.0),
]


@pytest.mark.parametrize(("form", "completion", "reference", "score"), FORMS)
def test_the_answer_is_looked_for_where_it_was_declared(form, completion, reference, score):
    assert reward(completion, reference, form=form).score == score


# answer, reference, score: what reading alone decides
READ = [
    (r"\frac{1}{2}", "0.5", 1.0),
    (r"\dfrac12", "1/2", 1.0),
    (r"\tfrac{2}{4}", r"\frac{1}{2}", 1.0),
    (r"\frac{-3}{4}", r"-\frac34", 1.0),
    (r"\frac{3}{-4}", r"-\frac34", 1.0),
    (r"1\frac{1}{2}", r"\frac{3}{2}", 1.0),
    (r"\frac{1}{3}", "0.333", 0.0),
    ("0.333333333", r"\frac13", 0.0),
    (r"\frac{1}{0}", "5", 0.0),
    ("0.0000001", "0.0000002", 0.0),
    ("72.0", "72", 1.0),
    ("71", "72", 0.0),
    ("-72", "72", 0.0),
    ("+72", "72", 1.0),
    ("\u221272", "-72", 1.0),
    (r"1{,}234", "1234", 1.0),
    (r"1\,234", "1234", 1.0),
    ("12,345,678", "12345678", 1.0),
    (r"\$1,234.50", "1234.5", 1.0),
    (r"2.5\times 10^{3}", "2500", 1.0),
    (r"$72$", "72", 1.0),
    (r"\(72\)", "72", 1.0),
    (r"72.", "72", 1.0),
    ("= 72", "72", 1.0),
    # what is left undone is not what it makes
    (r"6\cdot 12", "72", 0.0),
    ("0.1+0.2", "0.3", 0.0),
    (r"2^{10}", "1024", 0.0),
    (r"2^{10}", r"2^{10}", 1.0),
    (r"\sqrt{4}", "2", 0.0),
    ("5!", "120", 0.0),
    (r"\log_2 8", "3", 0.0),
    (r"|-5|", "5", 0.0),
    (r"\int_0^1 x dx", r"\frac12", 0.0),
    (r"\sum_{i=1}^{n} i", r"\frac{n(n+1)}{2}", 0.0),
    (r"\frac{d}{dx} x^2", "2x", 0.0),
    (r"\lim_{x\to 0} \frac{\sin x}{x}", "1", 0.0),
    (r"f(n)=\sum_{i=1}^{n} i", r"\frac{n(n+1)}{2}", 0.0),
    # numbers with a name
    ("x=5", "5", 1.0),
    ("5", "x=5", 1.0),
    ("x = 5", "x=5", 1.0),
    ("y=5", "x=5", 0.0),
    ("2x=10", "5", 0.0),
    # words and labels
    (r"\text{yes}", "yes", 1.0),
    (r"\text{no}", "yes", 0.0),
    (r"\text{least}", "east", 0.0),
    ("the answer is 5", "5", 0.0),
    # units that nobody declared are part of the answer
    (r"90^\circ", "90", 1.0),
    ("90", r"90^{\circ}", 1.0),
    ("90\u00b0", "90", 1.0),
    (r"50\text{ cm}", "50", 0.0),
    ("5c", "5", 0.0),
    ("5 apples", "5", 0.0),
    ("5x", "5", 0.0),
    # an equation is no solution of itself
    ("2x=10", "x=5", 0.0),
    # bases
    ("1010_2", "1010_{2}", 1.0),
    ("1010_3", "1010_2", 0.0),
    ("1010", "1010_2", 0.0),
    ("1010_2", "1010", 0.0),
    # what looks different and is not
    (r"\varnothing", r"\emptyset", 1.0),
    (r"\left(1,2\right)", "(1,2)", 1.0),
    (r"x^{2}", "x^2", 1.0),
    ("x\u00b2", "x^2", 1.0),
    # brackets say what they enclose
    ("[1,2]", "[1,2)", 0.0),
    ("(1,2]", "[1,2)", 0.0),
    (r"\{1,2\}", "(1,2)", 0.0),
    # malformed
    ("1 2", "12", 0.0),
    ("1 2", "3", 0.0),
    ("5 +", "5", 0.0),
    ("=", "5", 0.0),
    ("(((", "5", 0.0),
]

# answer, reference, score: what takes algebra
ALGEBRA = [
    # radicals and other constants
    (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}", 1.0),
    (r"\sqrt{8}", r"2\sqrt{2}", 1.0),
    (r"\sqrt{12}+\sqrt{3}", r"3\sqrt{3}", 1.0),
    (r"\sqrt{5+2\sqrt{6}}", r"\sqrt2+\sqrt3", 1.0),
    (r"\sqrt{3}", r"\sqrt{2}", 0.0),
    ("1.41421356", r"\sqrt{2}", 0.0),
    ("2", r"\sqrt{4}", 1.0),
    ("6.283185307", r"2\pi", 0.0),
    (r"0.1\sqrt{2}", r"\frac{\sqrt2}{10}", 1.0),
    (r"0.10000001\sqrt{2}", r"0.1\sqrt2", 0.0),
    (r"2\pi\cdot 10^{-20}", r"3\pi\cdot 10^{-20}", 0.0),
    (r"\ln 4", r"2\ln 2", 1.0),
    (r"3+4i", "4i+3", 1.0),
    (r"3-4i", "3+4i", 0.0),
    (r"\frac{1}{1+i}", r"\frac{1-i}{2}", 1.0),
    (r"-\infty", r"\infty", 0.0),
    (r"\frac{0}{0}", r"\sqrt{2}", 0.0),
    ("nan", r"\sqrt{2}", 0.0),
    # expressions
    ("x^2-1", "(x+1)(x-1)", 1.0),
    ("x^2+2x+2", "(x+1)^2", 0.0),
    (r"\frac{x^2-1}{x-1}", "x+1", 1.0),
    ("y^2", "x^2", 0.0),
    (r"\sqrt{x^2}", "|x|", 1.0),
    (r"\sqrt{x^2}", "x", 0.0),
    (r"2^x\cdot 2^x", "4^x", 1.0),
    (r"\sin 2x", r"2\sin x\cos x", 1.0),
    (r"x_1+x_2", "x_2+x_1", 1.0),
    (r"x_1+x_2", "x_1+x_3", 0.0),
    # sets and lists
    (r"\{1,2,3\}", r"\{3,2,1\}", 1.0),
    (r"\{1,2\}", r"\{1,2,3\}", 0.0),
    (r"\{1,2,3,4\}", r"\{1,2,3\}", 0.0),
    (r"\{\frac12, 0.25\}", r"\{1/4, 1/2\}", 1.0),
    ("3,2,1", "1,2,3", 1.0),
    (r"x=2, x=3", "2,3", 1.0),
    (r"x=2\text{ or }x=3", r"\{2,3\}", 1.0),
    (r"\pm 2", r"\{2,-2\}", 1.0),
    ("2", r"\pm 2", 0.0),
    (r"\frac{-1\pm\sqrt{5}}{2}", r"\{\frac{-1+\sqrt5}{2},\frac{-1-\sqrt5}{2}\}", 1.0),
    # tuples
    ("(1,2,3)", r"(1,\sqrt{4},3)", 1.0),
    ("(1,3,2)", "(1,2,3)", 0.0),
    # intervals
    (r"(1,\sqrt{4})", "(1,2)", 1.0),
    ("(2,1)", "(1,2)", 0.0),
    (r"(-\infty,2)\cup(3,\infty)", r"(3,\infty)\cup(-\infty,2)", 1.0),
    (r"(-\infty,2)\cup(3,\infty)", r"(-\infty,2)\cup(4,\infty)", 0.0),
    (r"x\in[1,2)", "[1,2)", 1.0),
    ("[1,2)", r"x\in[1,2)", 1.0),
    # matrices
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}", 1.0),
    (r"\begin{pmatrix}1&2\\4&3\end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", 0.0),
    (r"\begin{pmatrix}\frac12\\0.25\end{pmatrix}", r"\begin{pmatrix}0.5\\\frac14\end{pmatrix}", 1.0),
    (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}", 0.0),
    # equations
    ("2y=4x+2", "y=2x+1", 1.0),
    ("2x-y+1=0", "y=2x+1", 1.0),
    ("y=2x+2", "y=2x+1", 0.0),
    ("2x+1", "y=2x+1", 1.0),
    ("y=2x+1", "2x+1", 1.0),
    ("x^2+y^2=4", "y^2+x^2=4", 1.0),
    ("f(x)=x^2", "x^2", 1.0),
    ("g(x)=x^2", "f(x)=x^2", 0.0),
    ("x=2+3=5", "5", 1.0),
    ("9 = 5", "5", 0.0),
    ("x = 3 = 5", "5", 0.0),
    ("x^2+2=0", "x^2+1=0", 0.0),
    # inequalities
    ("2<x", "x>2", 1.0),
    (r"x\geqslant 2", r"x\ge 2", 1.0),
    (r"x\ge 2", "x>2", 0.0),
    ("x<2", "x>2", 0.0),
    ("2x>4", "x>2", 0.0),
    (r"(2,\infty)", "x>2", 1.0),
    (r"1\ge x\ge -1", r"-1\le x\le 1", 1.0),
    (r"-1\le x\le 1", "[-1,1]", 0.0),
    # malformed
    (r"\frac{}{}", r"\sqrt{2}", 0.0),
    ("x=", r"\sqrt{2}", 0.0),
    ("\\", r"\sqrt{2}", 0.0),
    ("x\x00y", r"\sqrt{2}", 0.0),
]


@pytest.mark.parametrize(("answer", "reference", "score"), READ)
def test_reading_decides_what_it_can(answer, reference, score):
    found = boxed(answer, reference)
    assert (found.score, found.metrics["symbolic"]) == (score, 0.0)


@pytest.mark.parametrize(("answer", "reference", "score"), ALGEBRA)
def test_algebra_decides_the_rest(answer, reference, score):
    found = boxed(answer, reference)
    assert (found.score, found.metrics["symbolic"]) == (score, 1.0)
    assert found.metrics["math_timeout"] == 0.0


# answer, reference, parameters, score
SETTINGS = [
    ("3.14", r"\pi", {}, 0.0),
    ("3.14", r"\pi", {"absolute_tolerance": 0.01}, 1.0),
    ("3.1", r"\pi", {"absolute_tolerance": 0.01}, 0.0),
    ("3.14", r"\pi", {"relative_tolerance": 0.001}, 1.0),
    ("3.13", r"\pi", {"relative_tolerance": 0.001}, 0.0),
    ("101", "100", {"relative_tolerance": 0.01}, 1.0),
    ("101.01", "100", {"relative_tolerance": 0.01}, 0.0),
    (r"\{3.14\}", r"\{\pi\}", {"absolute_tolerance": 0.01}, 0.0),
    (r"50\%", "0.5", {}, 1.0),
    (r"50\%", "50", {}, 0.0),
    ("50", r"50\%", {}, 0.0),
    (r"50\%", "50", {"percent": "points"}, 1.0),
    (r"50\%", "0.5", {"percent": "points"}, 0.0),
    (r"50\%\cdot\sqrt{2}", r"\frac{\sqrt{2}}{2}", {}, 1.0),
    (r"50\%\cdot\sqrt{2}", r"50\sqrt{2}", {"percent": "points"}, 1.0),
    (r"50\text{ cm}", "50", {"units": ["cm"]}, 1.0),
    ("50 cm", "50", {"units": ["cm"]}, 1.0),
    (r"50\,\mathrm{cm}^2", "50", {"units": ["cm^2"]}, 1.0),
    (r"2\sqrt{2}\text{ cm}", r"\sqrt{8}", {"units": ["cm"]}, 1.0),
    (r"50\text{ m}", "50", {"units": ["cm"]}, 0.0),
    (r"6\cdot 12", "72", {"unevaluated": True}, 1.0),
    (r"\sum_{i=1}^{10} i", "55", {"unevaluated": True}, 1.0),
    (r"6\cdot 13", "72", {"unevaluated": True}, 0.0),
    (r"\sqrt{8}", {"steps": 3, "result": r"2\sqrt{2}"}, {"reference_field": "result"}, 1.0),
]


@pytest.mark.parametrize(("answer", "reference", "parameters", "score"), SETTINGS)
def test_settings_say_what_else_is_right(answer, reference, parameters, score):
    assert boxed(answer, reference, **parameters).score == score


@pytest.mark.parametrize(
    "reference",
    [
        r"2\sqrt{2}",
        r"$2\sqrt{2}$.",
        r"\boxed{2\sqrt{2}}",
        r"We get $\sqrt{8}$, so \boxed{2\sqrt{2}}.",
        {"answer": r"2\sqrt{2}"},
        {"value": r"2\sqrt{2}", "unit": "cm"},
    ],
)
def test_references_of_every_shape_earn_the_maximum(reference):
    assert boxed(r"\sqrt{8}", reference).score == 1.0
    assert boxed(r"\sqrt{7}", reference).score == 0.0


@pytest.mark.parametrize(
    "reference",
    [None, "", "  ", [], {}, {"steps": 3}, "x" * 501, "(" * 13, r"\boxed{1} or \boxed{2}", float("nan")],
)
def test_a_row_without_one_formula_is_unscorable(reference):
    with pytest.raises(UnscorableError):
        boxed("5", reference)


@pytest.mark.parametrize(
    ("completion", "score", "several"),
    [
        (r"\boxed{\sqrt{8}} or \boxed{2\sqrt{2}}", 1.0, 1.0),
        (r"\boxed{2\sqrt{2}}, again \boxed{2 \sqrt{2}}", 1.0, 0.0),
        (r"\boxed{2\sqrt{2}} or \boxed{3}", 0.0, 1.0),
        (r"\boxed{3} or \boxed{\sqrt{8}}", 0.0, 1.0),
        (r"\boxed{2\sqrt{2}} or 3", 1.0, 0.0),
        (" ".join(rf"\boxed{{\sqrt{{{number}}}}}" for number in range(60)), 0.0, 1.0),
        (r"\boxed{2\sqrt{2}}" * 65, 0.0, 0.0),
        (r"\boxed{2\sqrt{2}, 3}", 0.0, 0.0),
        (r"\boxed{2\sqrt{2} \text{ or } 3}", 0.0, 0.0),
    ],
)
def test_listing_answers_never_pays(completion, score, several):
    found = reward(completion, r"2\sqrt{2}")
    assert (found.score, found.metrics["several_answers"]) == (score, several)


# task, answer, reference, score
COPIES = [
    ("Expand $(x+1)(x-1)$.", "(x+1)(x-1)", "x^2-1", 0.0),
    ("Expand (x + 1) (x - 1)", r"\left(x+1\right)\left(x-1\right)", "x^2-1", 0.0),
    ("Expand $(x+1)(x-1)$.", "x^2-1", "x^2-1", 1.0),
    ("Expand $(x+1)(x-1)$.", "-1+x^2", "x^2-1", 1.0),
    ("Factor\n\\[x^{2}-1\\]", "x^2-1", "(x+1)(x-1)", 0.0),
    (r"Simplify: $\dfrac{2}{\sqrt{2}}$", r"\frac{2}{\sqrt{2}}", r"\sqrt{2}", 0.0),
    # A piece of the task is not the task.
    (r"Simplify $\sqrt{8}+\sqrt{2}-\sqrt{2}$.", r"\sqrt{8}", r"2\sqrt{2}", 1.0),
    # What the reference says is right, wherever else it stands.
    (r"Is it $2\sqrt{2}$ or $3$?", r"2 \sqrt{2}", r"2\sqrt{2}", 1.0),
    ("Solve $2x=10$.", "2x=10", "x=5", 0.0),
    (r"What is $6 \cdot 12$?", r"6\cdot 12", "72", 0.0),
    (r"Evaluate $\int_0^1 x dx$.", r"\int_0^1 x dx", r"\frac12", 0.0),
]


@pytest.mark.parametrize(("task", "answer", "reference", "score"), COPIES)
def test_copying_the_task_pays_nothing(task, answer, reference, score):
    assert boxed(answer, reference, task).score == score


def test_a_copy_is_counted_and_a_setting_pays_it():
    task = "Expand $(x+1)(x-1)$."
    assert boxed("(x+1)(x-1)", "x^2-1", task).metrics["copied"] == 1.0
    assert boxed("(x+1)(x-1)", "x^2-1", task, unevaluated=True).score == 1.0


# Each of them is answered at once, because it is no formula, or because algebra gives up by itself.
CHEAP_BOMBS = [
    "(" * 13 + "x" + ")" * 13,
    "(" * 200 + "x" + ")" * 200,
    "{" * 200 + "}" * 200,
    "9" * 501,
    "9" * 500,
    r"\frac{1}{" * 12 + "x" + "}" * 12,
    r"\frac{1}{" * 11 + "x" + "}" * 11,
    r"10^{10^{10}}",
    "1e999999999",
    r"\binom{10^9}{5\cdot 10^8}",
    r"e^{e^{e^{e^{e}}}}",
    r"x^{1000000}-1",
    r"\int_0^1 e^{e^{e^x}} dx",
    "-" * 400 + "1",
    "|" * 400,
    r"\left" * 80,
    r"\input{/etc/passwd}",
    "\ud800",
    r"\sqrt{2}\text{__import__('os').abort()}",
]


@pytest.mark.parametrize("bomb", CHEAP_BOMBS)
def test_a_bomb_that_reading_or_algebra_refuses_earns_nothing(bomb):
    assert boxed(bomb, r"\sqrt{2}", symbolic_seconds=5).score == 0.0


@pytest.mark.parametrize("bomb", [r"(x+y+z+w)^{50}", r"9^{9^{9}}!"])
def test_a_bomb_that_would_take_hours_or_all_memory_is_killed_at_its_limit(bomb):
    found = boxed(bomb, r"\sqrt{2}", symbolic_seconds=1)
    assert (found.score, found.metrics["math_timeout"]) == (0.0, 1.0)
    assert "as far as algebra could tell in 1 s" in found.reason
    assert boxed(r"\sqrt{8}", r"2\sqrt{2}").score == 1.0


def test_the_limit_holds_off_the_main_thread():
    handler = reward_handler(MathAnswer(symbolic_seconds=1).score)
    messages = [{"role": "assistant", "content": r"\boxed{9^{9^{9^9}}}"}]
    responses = []
    thread = threading.Thread(
        target=lambda: responses.extend(
            handler([{"id": "a", "messages": messages, "reference_answer": r"\sqrt{2}"}], None)
        ),
        daemon=True,
    )
    thread.start()
    thread.join(timeout=60)
    (response,) = responses
    assert response["aggregate_reward_score"] == 0.0
    assert {"name": "math_timeout", "value": 1.0, "type": "Metric"} in response["metrics_list"]


def test_a_long_completion_costs_no_algebra():
    found = reward("x" * 1_000_000 + r"\boxed{" * 10_000, r"\sqrt{2}")
    assert (found.score, found.metrics["symbolic"]) == (0.0, 0.0)


def test_every_score_says_what_was_read_and_why():
    found = boxed(r"\sqrt{7}", "x")
    assert found.extracted == repr(r"\sqrt{7}")
    assert found.reason == f"{found.extracted} is not 'x'"
    assert reward("72", "72").reason == r"no answer in \boxed{}"


def test_the_algebra_process_sees_nothing_of_the_environment():
    boxed(r"\sqrt{8}", r"2\sqrt{2}")
    environ = Path(f"/proc/{math_answer._algebra()._child.pid}/environ")
    if not environ.exists():
        pytest.skip("this system does not show a process's environment")
    names = {line.partition("=")[0] for line in environ.read_text().split("\0") if line}
    assert names <= {"PYTHONPATH", "PYTHONHASHSEED", "LD_LIBRARY_PATH"}


def test_an_algebra_process_that_died_is_started_again():
    boxed(r"\sqrt{8}", r"2\sqrt{2}")
    child = math_answer._algebra()._child
    child.kill()
    child.wait()
    assert boxed(r"\sqrt{8}", r"2\sqrt{2}").score == 1.0


def test_an_interrupted_comparison_leaves_no_verdict_for_the_next():
    class Interrupt(BaseException):
        pass

    def interrupt(_signal, _frame):
        raise Interrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(Interrupt):
            boxed(r"9^{9^{9^9}}", r"\sqrt{2}", symbolic_seconds=1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous)
    assert boxed(r"\sqrt{8}", r"2\sqrt{2}").score == 1.0


def test_algebra_that_cannot_start_is_infrastructure_trouble(tmp_path, monkeypatch):
    (tmp_path / "sympy.py").write_text("raise ImportError('no sympy here')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InfrastructureError, match=r"no sympy here.*requirements/rewards/math_answer\.txt"):
        Algebra().compare("x", ["y"])


def test_a_library_that_prints_cannot_write_a_verdict(tmp_path, monkeypatch):
    """A sympy that says "equal" while it is imported, and then makes way for the real one."""
    away = f"import sys; sys.path.remove({str(tmp_path)!r}); del sys.modules['sympy']; import sympy"
    (tmp_path / "sympy.py").write_text(f"print('equal', flush=True); {away}")
    monkeypatch.syspath_prepend(tmp_path)
    algebra = Algebra()
    try:
        assert algebra.compare(r"2\sqrt{2}", [r"\sqrt{7}"]) == "different"
        assert algebra.compare(r"2\sqrt{2}", [r"\sqrt{8}"]) == "equal"
    finally:
        algebra.close()


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"form": "any"}, "form is one of boxed"),
        ({"tag": "<answer>"}, "tag is a name"),
        ({"absolute_tolerance": -1}, "absolute_tolerance is a number of at least 0"),
        ({"relative_tolerance": float("inf")}, "relative_tolerance is a number of at least 0"),
        ({"percent": "half"}, "percent is one of fraction, points"),
        ({"units": "cm"}, "units is a list of words or signs"),
        ({"units": ["5cm"]}, "units are words or signs"),
        ({"units": [""]}, "units are words or signs"),
        ({"unevaluated": "yes"}, "unevaluated is true or false"),
        ({"symbolic_seconds": 0}, "whole number from 1 to 30"),
        ({"symbolic_seconds": 31}, "whole number from 1 to 30"),
        ({"symbolic_seconds": True}, "whole number from 1 to 30"),
        ({"symbolic_seconds": 1.5}, "whole number from 1 to 30"),
    ],
)
def test_a_wrong_parameter_is_named(parameters, says):
    with pytest.raises((TypeError, ValueError), match=says):
        MathAnswer(**parameters)
