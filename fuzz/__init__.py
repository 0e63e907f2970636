# SPDX-License-Identifier: Apache-2.0
"""Fuzzers, guided by coverage and run by hand: what they find becomes a test."""
