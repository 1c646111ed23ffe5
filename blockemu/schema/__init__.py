"""QAPI types that more than one module needs: declarations only."""
