ln -s a.txt context/link; mkfifo context/p
