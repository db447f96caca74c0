"""Start a daemon in another Python, have it load data and fit a model, and leave."""

import sys

import spawny

model = spawny.run_module("co2_model", name="co2", python_exe=sys.argv[1])

there = model.describe()
print(f"pid {there['pid']}: {there['python']}, numpy {there['numpy']}")
print(f"CO2 in May 1974: {model.predict(1974.37):.1f} ppm")
