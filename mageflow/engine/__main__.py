"""``python -m mageflow.engine``, also installed as the console script ``mageflow-engine``."""

from mageflow.engine.process import main

if __name__ == "__main__":
    raise SystemExit(main())
