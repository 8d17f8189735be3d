chmod 4755 context/s
