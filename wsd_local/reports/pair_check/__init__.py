"""Whether two models make a good pair: measured, judged, shown."""
