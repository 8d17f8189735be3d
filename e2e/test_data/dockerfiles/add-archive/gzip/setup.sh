tar --mtime=@0 --sort=name -C context -cf - --owner=5 --group=6 dir a.txt | gzip -n > context/x.tar.gz
