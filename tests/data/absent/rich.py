raise ImportError("no image has rich: see conftest.py")
