raise ImportError("no image has pygments: see conftest.py")
