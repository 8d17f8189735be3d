cd context; T="tar --mtime=@0 --sort=name --owner=5 --group=6"
ln -s a.txt l; ln a.txt h; mkfifo p; mknod n c 1 3; chmod 4755 b.txt; $T -cf x.tar l a.txt h p n b.txt; rm -f p n
