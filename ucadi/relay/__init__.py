"""The relay: keeps one exchange directory and moves its files, as opaque bytes, over ZeroMQ (pyzmq only here)."""
