"""Strategies against one another on published tables: regret and hypervolume over evaluations. No training.

    python benchmarks/search_efficiency.py TABLES --seeds 30 -o RESULTS.json

NAS-Bench-201 (Dong and Yang 2020), all 15,625 cells: searched by the validation accuracy after 12 epochs on CIFAR-10,
judged by the test accuracy after 200. With two objectives, multiply-adds of the cell join, known beforehand. The 36
pooling configurations of ResNet-20 (Javan et al. 2023) are searched by their stand-alone accuracy.
Our strategies run as a study does, with results 8 trials late; the others are used directly, one trial after another.
"""
