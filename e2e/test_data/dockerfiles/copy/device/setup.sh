mknod -m 640 context/null c 1 3
