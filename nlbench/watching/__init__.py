"""Watching runs while they train: TensorBoard, Weights & Biases, MLflow, or a logger of one's own.

The process of the command hears of each epoch through `feed.Feed`, a Listener. For each logger a
thread (`channel`) passes the news on, so that no training waits for it, and a logger that raises or
hangs is switched off. Loggers that are chosen by their name work in a process of their own
(`apart`, `serve`).
"""

from nlbench.watching.base import Logger, WatchedRun

__all__ = ["Logger", "WatchedRun"]
