tar -C context -czf context/x.tar.gz --owner=5 --group=6 dir a.txt
