"""Carbon dioxide at Mauna Loa: a curved trend and the seasons, fitted by least squares.

Runs in the daemon, under whatever Python that has: nothing here knows of spawny.
"""

import csv
import datetime
import os
import platform

import numpy as np

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "mauna_loa_co2.csv")

# The trend is a parabola about this year, the season two waves: a year and half a year long.
MIDDLE = 1980.0

answered = 0  # how often anybody has asked, from whatever script


def year_of(day):
    """A date as a fraction of years: 1980-07-02 is 1980.5."""
    first, last = datetime.date(day.year, 1, 1), datetime.date(day.year + 1, 1, 1)
    return day.year + (day - first).days / float((last - first).days)


def load(path):
    """Years and ppm as two arrays."""
    with open(path) as lines:
        rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    days = [datetime.date(*map(int, row["date"].split("-"))) for row in rows]
    return np.array([year_of(day) for day in days]), np.array([float(row["ppm"]) for row in rows])


def terms(when):
    """What the model adds up, a column for each coefficient."""
    when = np.atleast_1d(when)
    t, angle = when - MIDDLE, 2 * np.pi * when
    waves = [wave(k * angle) for k in (1, 2) for wave in (np.sin, np.cos)]
    return np.stack([np.ones_like(t), t, t**2, *waves], axis=1)


def predict(when):
    """Parts per million at a time such as 1995.4."""
    global answered
    answered += 1
    return float(terms(when).dot(coefficients)[0])


def describe():
    """Where this runs and what it holds."""
    return {
        "pid": os.getpid(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "numpy": np.__version__,
        "weeks": len(years),
        "error": error,
        "answered": answered,
    }


years, ppm = load(DATA)
coefficients = np.linalg.lstsq(terms(years), ppm, rcond=None)[0]
error = float(np.sqrt(np.mean((terms(years).dot(coefficients) - ppm) ** 2)))
print(f"fitted {len(years)} weeks of data, to {error:.2f} ppm")
