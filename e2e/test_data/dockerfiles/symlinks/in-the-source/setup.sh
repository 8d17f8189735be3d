ln -s a.txt context/link
ln -s dir context/dirlink
ln -s /nowhere context/dangling
