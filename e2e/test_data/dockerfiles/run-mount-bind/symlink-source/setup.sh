ln -s dir context/l
