mkfifo -m 600 context/pipe
