ln -s a.txt context/link; ln -s dir context/dirlink; ln -s ../a.txt context/dir/up; ln -s /etc/passwd context/abs; ln -s nowhere context/dangling; ln -s loop context/loop
