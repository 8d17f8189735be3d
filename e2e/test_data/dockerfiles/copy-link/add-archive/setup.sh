tar --mtime=@0 --sort=name --owner=5 --group=6 -C context -cf context/x.tar dir
