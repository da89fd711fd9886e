"""Linux as the supervisor and the ranks use it: seccomp, mounts, namespaces, sockets, clocks."""
