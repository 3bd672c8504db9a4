"""Locked towers and their heads apart: pooled features, heads that are trained on them, and the two joined again."""
