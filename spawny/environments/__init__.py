"""Virtual environments made on demand, from what a daemon is said to require.

`requirements` reads what a user writes, with `script` and `pyproject` for what TOML says; `bases`
tells which interpreter an environment is made with and `indexes` where packages come from; `key`
names an environment after all of these, `store` keeps them, `build` fills one, `progress` shows it
and `obtain` is the whole of it.
"""
