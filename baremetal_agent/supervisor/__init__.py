"""The process that stays with one workload: its output, and how it ended.

One runs for each workload, so these modules import next to nothing: not even `signal`, `json`, `re` or `contextlib`,
each of which brings half a megabyte and more. Nothing else of ours is imported here. What they leave in the folder of
the instance, each whole or not there: `started` and `ended` (JSON), and the log, `log` and before it `log.1`, in the
format of Kubernetes' container logs.
"""
