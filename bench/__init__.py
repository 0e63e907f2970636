# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: each measures Sfumato and what it is compared with in one run, and returns ratios."""
