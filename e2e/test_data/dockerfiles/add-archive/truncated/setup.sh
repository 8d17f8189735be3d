cd context; T="tar --mtime=@0 --sort=name --owner=5 --group=6"
$T -cf - dir | gzip -n | head -c 60 > x.tar.gz
