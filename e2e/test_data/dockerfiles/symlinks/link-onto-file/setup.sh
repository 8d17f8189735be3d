ln -s nowhere context/sub/a.txt
