chmod 640 context/a.txt
chmod 4755 context/b.txt
chmod 1777 context/dir
chmod 700 context/dir/sub
