# SPDX-License-Identifier: GPL-3.0-or-later
"""A real one-node Kubernetes for tests, built from published Go modules."""
