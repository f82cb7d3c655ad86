"""Each peer measured side by side in one run: `python -m benchmarks.NAME [--quick] [--json]`.

Add one by adding a module that ends in `report.show(NAME, rows, as_json)`.
"""
