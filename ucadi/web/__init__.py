"""The diagnosis page: an HTTP server that queues uploaded CTs, and a worker that runs the commands on each.

The server streams bytes to the disk and back and keeps the queue; it opens no upload. `worker` does, in a process
of its own with limits, one job at a time.
"""
