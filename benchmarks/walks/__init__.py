"""What the benchmark of backtests is made of.

work    the bars, the protocol that every side walks by, and a process of one's own to be measured in
own     our walk
peers   the same walk by PyTorch and by LightGBM
replay  many bars through one version, by block and bar by bar through the store
often   what it costs and earns to train more often
"""
