chmod 2750 context/dir; chmod 1700 context/dir/sub; chmod 711 context
