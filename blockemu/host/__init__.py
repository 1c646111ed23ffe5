"""What the operating system gives: files, sockets, threads, the event loop."""
