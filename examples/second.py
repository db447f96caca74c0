"""Come later, knowing nothing but a name: the model is there, loaded and fitted."""

import time

began = time.perf_counter()

from spawny import attach  # noqa: E402 (its import is part of what is measured)

imported = time.perf_counter()
model = attach("co2")
answer = model.predict(1998.37)
answered = time.perf_counter()

print(f"CO2 in May 1998: {answer:.1f} ppm")
print(f"attached and answered in {(answered - imported) * 1000:.0f} ms")
print(f"importing spawny took {(imported - began) * 1000:.0f} ms")

there = model.describe()
print(f"pid {there['pid']}: has answered {there['answered']} questions, one of them not mine")
print(f"its largest measurement is {model.ppm.max()} ppm")
