chmod 700 context/dir/sub; chmod 600 context/dir/one.txt
