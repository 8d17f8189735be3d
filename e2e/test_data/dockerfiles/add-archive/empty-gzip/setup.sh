cd context; T="tar --mtime=@0 --sort=name --owner=5 --group=6"
$T -cf - -T /dev/null | gzip -n > x.tar.gz
