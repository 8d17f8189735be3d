cd context; T="tar --mtime=@0 --sort=name --owner=5 --group=6"
$T --zstd -cf x.tar.zst dir a.txt
