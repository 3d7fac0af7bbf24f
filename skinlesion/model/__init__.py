"""The network: backbone, fusion gate, attention, funnel."""
