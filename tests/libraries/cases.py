"""Libraries that daemons have to run, each with a script whose answer is known."""

from dataclasses import dataclass

NUMPY = """
import numpy
version = numpy.__version__
def answer():
    a = numpy.arange(12.0).reshape(3, 4)
    inverse = numpy.linalg.inv(numpy.array([[2.0, 1.0], [1.0, 1.0]]))
    state = numpy.random.RandomState(7)
    return [float((a @ a.T).trace()), numpy.round(inverse, 6).tolist(), int(state.randint(1000))]
"""

NUMPY_ANSWER = [506.0, [[1.0, -1.0], [-1.0, 2.0]], 175]

PANDAS = """
import io, pandas
version = pandas.__version__
def answer():
    table = pandas.read_csv(io.StringIO("who,what\\nada,3\\nbob,4\\nada,5\\n"))
    sums = table.groupby("who")["what"].sum()
    return [sums.to_dict(), float(table["what"].mean()), table.merge(table, on="who").shape[0]]
"""

SKLEARN = """
import sklearn
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
version = sklearn.__version__
def answer():
    x, y = load_iris(return_X_y=True)
    near = KNeighborsClassifier(1).fit(x[::2], y[::2])
    linear = LogisticRegression(max_iter=1000).fit(x, y)
    return [list(x.shape), float(near.score(x[::2], y[::2])), bool(linear.score(x, y) > 0.9)]
"""

FLASK = """
from importlib.metadata import version as version_of
import flask
version = version_of("flask")
app = flask.Flask("shop")
stock = {"apples": 3}
@app.route("/stock/<name>", methods=["GET", "POST"])
def show(name):
    if flask.request.method == "POST":
        stock[name] = stock.get(name, 0) + int(flask.request.form["more"])
    return flask.jsonify({name: stock[name]})
def answer():
    stock.update(apples=3)
    client = app.test_client()
    client.post("/stock/apples", data={"more": "4"})
    return [client.get("/stock/apples").get_json(), client.get("/nowhere").status_code]
"""

TORCH = """
import torch
version = torch.__version__
def answer():
    torch.manual_seed(0)
    w = torch.zeros(2, requires_grad=True)
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    y = x @ torch.tensor([2.0, -1.0])
    optimizer = torch.optim.SGD([w], lr=0.02)
    for _ in range(3000):
        optimizer.zero_grad()
        loss = ((x @ w - y) ** 2).mean()
        loss.backward()
        optimizer.step()
    return [[round(value, 2) for value in w.tolist()], float(x.sum())]
"""


@dataclass(frozen=True)
class Case:
    """One library in one interpreter. One that is `optional` may be had nowhere."""

    python: str
    requirement: str
    preload: str
    script: str
    answer: object
    optional: str = ""


CASES = [
    Case("3.7", "numpy==1.16.*", "numpy", NUMPY, NUMPY_ANSWER),
    Case("3.6", "numpy==1.19.*", "numpy", NUMPY, NUMPY_ANSWER),
    Case("3.9", "numpy==1.26.*", "numpy", NUMPY, NUMPY_ANSWER),
    Case("3.12", "numpy>=2,<3", "numpy", NUMPY, NUMPY_ANSWER),
    Case("3.8", "pandas<2", "pandas", PANDAS, [{"ada": 8, "bob": 4}, 4.0, 5]),
    Case("3.13", "pandas>=2", "pandas", PANDAS, [{"ada": 8, "bob": 4}, 4.0, 5]),
    Case("3.11", "scikit-learn", "sklearn", SKLEARN, [[150, 4], 1.0, True]),
    Case("3.10", "flask", "flask", FLASK, [{"apples": 7}, 404]),
    Case(
        *("3.11", "torch==2.13.0+cpu", "torch", TORCH, [[2.0, -1.0], 21.0]),
        optional="its wheels without GPU libraries are in no usual index",
    ),
]
