ln -s ../../../../a.txt context/esc
