ln -s a.txt context/link; ln -s a.txt context/kept; ln -s src context/dl
