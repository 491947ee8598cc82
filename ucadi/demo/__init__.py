"""A first result: the whole way from synthetic CTs to a heatmap with a small model that the package brings."""
